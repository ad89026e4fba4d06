"""Prompts that are trained in one forward pass go the way that each goes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import RecipeError
from pipelines.inference.base import Base, load_base
from pipelines.recipe import Optimisation, Prompt
from pipelines.training.loop import train
from pipelines.training.shards import Rows
from pipelines.training.together import Member, train_together
from pipelines.training.tuned import linear_head, tune

SHARED = Optimisation(epochs=2, batch_size=8, warmup=0.2)
WORDS = {"word_ids": torch.tensor([7, 9])}


def some_rows(n: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 14, n)
    tokens = [rng.integers(5, 90, length).tolist() for length in lengths]
    return Rows([str(row) for row in range(n)], tokens, rng.integers(0, 2, n), lengths)


ROWS, VALIDATION = some_rows(28, 1), some_rows(13, 2)  # the last batch of each order is a short one


@pytest.fixture(params=["bert", "gpt2", "llama"])
def base(request: pytest.FixtureRequest) -> Base:
    """Each of three bases in turn, in float64."""
    base = load_base(request.getfixturevalue(f"{request.param}_folder"))
    base.backbone.double()
    if base.lm_head is not None:
        base.lm_head.double()
    return base


def members(base: Base, method: str, words: bool, **more: Any) -> list[Member]:
    settings = [
        Prompt.model_validate({"method": method, "tokens": 3, "rate": rate, "head_rate": 0.02, **more})
        for rate in (0.1, 0.02, 0.05)
    ]
    heads = [WORDS if words else linear_head(base, 2, seed) for seed in range(3)]
    return [
        Member(tune(base, each, head, seed).double(), each, seed)
        for seed, (each, head) in enumerate(zip(settings, heads, strict=True))
    ]


@pytest.mark.parametrize(
    ("method", "more"), [("prompt-tuning", {"dropout": 0.2}), ("p-tuning-v2", {}), ("residual", {"bottleneck": 4})]
)
@pytest.mark.parametrize("words", [False, True])
def test_each_ends_as_it_does_alone(base: Base, method: str, more: dict[str, Any], words: bool) -> None:
    if words and base.lm_head is None:
        pytest.skip("no language-model head")
    together, apart = members(base, method, words, **more), members(base, method, words, **more)
    went = train_together(together, SHARED, ROWS, VALIDATION)
    for one, other, here in zip(together, apart, went, strict=True):
        alone = train(other.tuned, other.settings, SHARED, other.seed, ROWS, VALIDATION, lambda news: None)
        weights = dict(other.tuned.trained())
        for name, parameter in one.tuned.trained():
            assert torch.allclose(parameter, weights[name], rtol=0, atol=1e-5), name
        assert here.steps == alone.steps == 8 and here.kept_epoch == alone.kept_epoch
        assert [step for step, _ in here.curve] == [step for step, _ in alone.curve]
        assert np.allclose([loss for _, loss in here.curve], [loss for _, loss in alone.curve], atol=1e-5)
        for left, right in zip(here.epochs, alone.epochs, strict=True):
            assert left.validation_loss == pytest.approx(right.validation_loss, abs=1e-5)
            assert left.validation_accuracy == right.validation_accuracy
    first, second, _ = (each.tuned for each in together)
    assert not torch.allclose(*(next(each.trained())[1] for each in (first, second)))


def test_prompts_of_two_shapes_do_not_fit(gpt2_folder: Path) -> None:
    base = load_base(gpt2_folder)
    pair = [Prompt(method="prompt-tuning", tokens=tokens, rate=0.1) for tokens in (2, 3)]
    unlike = [Member(tune(base, each, WORDS, 0), each, 0) for each in pair]
    with pytest.raises(RecipeError, match=r"\(2, 32\).*\(3, 32\).*do not fit into one forward pass"):
        train_together(unlike, SHARED, ROWS, VALIDATION)
    longer = Prompt(method="prompt-tuning", tokens=2, rate=0.1, epochs=5)
    with pytest.raises(RecipeError, match=r"\[2, 5\] epochs"):
        train_together([unlike[0], Member(tune(base, longer, WORDS, 0), longer, 0)], SHARED, ROWS, VALIDATION)
