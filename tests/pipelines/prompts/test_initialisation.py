"""A start is made of what its recipe names: label words, a text, the vocabulary or a prior over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from pipelines.errors import RecipeError
from pipelines.inference.base import Base, load_base
from pipelines.prompts.initialisation import (
    Origin,
    inputs,
    prior,
    start_ids,
    superposition,
    superposition_vocabulary,
    text,
)
from pipelines.prompts.methods import new_prompt
from pipelines.recipe import Prompt

WORDS = ("refund", "login")


@pytest.fixture
def base(any_folder: Path) -> Base:
    return load_base(any_folder)


@pytest.fixture
def tokenizer(any_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(any_folder)


def asked(method: str = "prompt-tuning", tokens: int = 5, **more: object) -> Prompt:
    return Prompt.model_validate({"method": method, "tokens": tokens, "rate": 0.1, **more})


def origin(base: Base, settings: Prompt, ids: tuple[int, ...] = ()) -> Origin:
    return Origin(base, settings, {}, ids, torch.Generator().manual_seed(3))


def test_label_words_are_read_as_they_stand_after_a_space(tokenizer: Any) -> None:
    ids = start_ids(tokenizer, asked(init="labels"), WORDS)
    assert ids == [token for word in WORDS for token in tokenizer.encode(" " + word, add_special_tokens=False)]
    assert tokenizer.decode(ids).strip() == "refund login"
    assert start_ids(tokenizer, asked(init="labels"), WORDS[::-1]) != ids


def test_a_text_is_read_as_it_is_written(tokenizer: Any) -> None:
    settings = asked(init="text", init_text="my refund again")
    assert tokenizer.decode(start_ids(tokenizer, settings, WORDS)) == "my refund again"


@pytest.mark.parametrize("init", ["random", "vocabulary", "prior", "inputs"])
def test_other_starts_need_no_text(tokenizer: Any, init: str) -> None:
    assert start_ids(tokenizer, asked(init=init), WORDS) == []


@pytest.mark.parametrize("nothing", ["", " \n "])
def test_a_text_without_tokens_is_refused(tokenizer: Any, nothing: str) -> None:
    with pytest.raises(RecipeError, match=r"init = 'text' cannot start from '.*': this base has no tokens for it"):
        start_ids(tokenizer, asked(init="text", init_text=nothing), WORDS)
    with pytest.raises(RecipeError, match=r"init = 'labels' cannot start from .*Write words that the base knows"):
        start_ids(tokenizer, asked(init="labels"), (nothing, nothing))


def test_a_text_of_unknown_tokens_alone_is_refused(bert_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    with pytest.raises(RecipeError, match="cannot start from '中 文'"):
        start_ids(tokenizer, asked(init="text", init_text="中 文"), WORDS)
    assert start_ids(tokenizer, asked(init="text", init_text="中 refund"), WORDS)


@pytest.mark.parametrize(("ids", "filled"), [((7,), [7] * 5), ((7, 9), [7, 9, 7, 9, 7]), (range(6, 20), range(6, 11))])
def test_a_short_text_is_repeated_and_a_long_one_cut(base: Base, ids: Any, filled: Any) -> None:
    wanted = base.embeddings.weight[torch.tensor(list(filled))]
    assert torch.equal(text(origin(base, asked(), tuple(ids)))["embeddings"], wanted)
    for method in ("prompt-tuning", "p-tuning", "residual"):  # all tables start alike, whatever reads them
        module = new_prompt(base, asked(method, init="labels"), 0, ids)
        assert any(torch.equal(parameter, wanted) for parameter in module.parameters()), method


def test_training_texts_start_a_table_as_the_means_of_their_parts(base: Base) -> None:
    vectors = base.embeddings.weight
    ids = (7, 9, 11, 7, 30, 8, 6, 5)
    wanted = torch.stack([vectors[torch.tensor(part)].mean(0) for part in ((7, 9, 11), (7, 30, 8), (6, 5))])
    assert torch.allclose(inputs(origin(base, asked(tokens=3), ids))["embeddings"], wanted)
    few = inputs(origin(base, asked(tokens=3), (7, 9)))["embeddings"]
    assert torch.allclose(few, vectors[torch.tensor([7, 9, 7])])


def test_the_prior_has_the_mean_and_the_covariance_of_the_vocabulary(base: Base) -> None:
    table = base.embeddings.weight
    with torch.no_grad():
        table += 1  # a mean that is far from zero
    drawn = prior(origin(base, asked(tokens=40_000)))["embeddings"]
    spread = table.std()
    assert torch.allclose(drawn.mean(0), table.mean(0), atol=0.03 * float(spread))
    assert torch.allclose(drawn.T.cov(), table.T.cov(), atol=0.05 * float(spread**2))
    assert not torch.allclose(table.T.cov(), table.T.cov().diag().diag(), atol=0.05 * float(spread**2))
    assert not (drawn[:100, None] == table[None]).all(-1).any()


def test_a_superposition_starts_among_different_tokens(base: Base) -> None:
    settings = asked("superpos", tokens=9, basis=7, init_scale=0.5)
    for start in (superposition(origin(base, settings)), superposition_vocabulary(origin(base, settings))):
        places = (start["basis"][:, None] == base.embeddings.weight[None]).all(-1)
        assert places.any(1).all() and len(set(places.float().argmax(1).tolist())) == 7
        assert start["weights"].shape == (9, 7)
    vectors = new_prompt(base, settings.model_copy(update={"init": "vocabulary"}), 3)()["embeddings"]
    assert torch.equal(vectors, torch.cat([start["basis"], start["basis"][:2]]))


def test_a_superposition_of_random_weights_has_the_scale_it_was_given(base: Base) -> None:
    for scale in (0.02, 3.0):
        weights = superposition(origin(base, asked("superpos", tokens=60, basis=50, init_scale=scale)))["weights"]
        assert weights.std().item() == pytest.approx(scale, rel=0.1)
