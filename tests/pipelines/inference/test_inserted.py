"""A prompt inside a text or after it, on every architecture: it stands where the marker is, whatever its company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from pipelines.inference.base import Base
from pipelines.inference.engine import Engine
from pipelines.inference.features import features
from pipelines.inference.forward import hidden_states, padded, read
from pipelines.inference.label_words import word_scores
from pipelines.inference.mixed import logits
from pipelines.inference.predictor import load_predictor
from pipelines.prompts.artifact import read_prompt
from pipelines.tokens.template import MARKER

P = 3
ROWS = [
    [5, 9, MARKER, 12, 7, 30, 8],
    [6, MARKER],
    [MARKER, 21, 14, 11],
    [9, 9, 17, 40, 6, 7, 8, 33, 19, MARKER, 4],
    [44, 2, MARKER],
]
# Llama's norms and rotary angles, and T5's norms, are float32 in any case.
TOLERANCE = {"bert": 1e-10, "gpt2": 1e-10, "llama": 1e-5, "t5": 1e-5, "bart": 1e-10}


def close(base: Base, left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


def prompt_for(base: Base, tokens: int = P) -> dict[str, Tensor]:
    """Vectors with entries of N(0, 1), in the base's precision."""
    drawn = torch.randn(tokens, base.hidden_width, generator=torch.Generator().manual_seed(3))
    return {"inserted": drawn.to(base.embeddings.weight.dtype)}


@pytest.mark.parametrize("tokens", [1, P])
@torch.no_grad()
def test_it_is_vectors_among_the_token_embeddings(base: Base, any_folder: Path, tokens: int) -> None:
    """Each row alone, through the model itself in transformers' plain attention."""
    model: Any = AutoModel.from_pretrained(any_folder, attn_implementation="eager").double().eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    prompt = prompt_for(base, tokens)
    together = hidden_states(base, *padded(ROWS), prompt)
    everything, seen = read(base, *padded(ROWS), prompt)
    for row, own, whole, mask in zip(ROWS, together, everything, seen, strict=True):
        at, table = row.index(MARKER), model.get_input_embeddings()
        parts = [table(torch.tensor(row[:at], dtype=torch.long)), prompt["inserted"],
                 table(torch.tensor(row[at + 1 :], dtype=torch.long))]  # fmt: skip
        wanted = model(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[0]
        assert close(base, whole[mask == 1], wanted)
        assert close(base, own[:at], wanted[:at])
        assert close(base, own[at : len(row)], wanted[at + tokens - 1 :])


@pytest.mark.parametrize("pad", [0, 13])
@torch.no_grad()
def test_neither_padding_nor_company_changes_anything(base: Base, pad: int) -> None:
    prompt = prompt_for(base)
    for rows in (ROWS, [[7, 8, MARKER, number, 30] for number in range(5, 13)]):
        together = hidden_states(base, *padded(rows, pad), prompt)
        read_of = features(base, *padded(rows, pad), prompt, base.pooling)
        for row, states, feature in zip(rows, together, read_of, strict=True):
            assert close(base, states[: len(row)], hidden_states(base, *padded([row]), prompt)[0])
            assert close(base, feature, features(base, *padded([row]), prompt, base.pooling)[0])


@torch.no_grad()
def test_a_head_reads_the_text_alone_or_where_the_row_ends(base: Base) -> None:
    prompt = prompt_for(base)
    states = hidden_states(base, *padded(ROWS), prompt)
    found = features(base, *padded(ROWS), prompt, base.pooling)
    for row, own, feature in zip(ROWS, states, found, strict=True):
        text = own[[place for place, token in enumerate(row) if token != MARKER]]
        assert close(base, feature, own[len(row) - 1] if base.decoder else text.mean(0))


def test_packed_rows_give_the_features_and_gradients_of_padded_ones(base: Base) -> None:
    found = []
    for packs in (base.packs, False):
        vectors = prompt_for(base)["inserted"].requires_grad_()
        made = features(replace(base, packs=packs), *padded(ROWS), {"inserted": vectors}, base.pooling)
        found.append((made.detach(), *torch.autograd.grad(made.sin().sum(), vectors)))
    assert all(close(base, left, right) for left, right in zip(*found, strict=True))
    assert (found[0][1].abs().sum(1) > 0).all()


@torch.no_grad()
def test_token_types_follow_the_separators(doubled: Callable[[Path], Base], bert_folder: Path) -> None:
    base, tokenizer = doubled(bert_folder), AutoTokenizer.from_pretrained(bert_folder)
    row = tokenizer("my invoice again", "please help")["input_ids"]
    model = AutoModel.from_pretrained(bert_folder).double().eval()
    for at in (2, len(row) - 2):  # in each of the segments
        prompt = prompt_for(base)
        marked = [*row[:at], MARKER, *row[at:]]
        table = model.get_input_embeddings()
        parts = [table(torch.tensor(row[:at])), prompt["inserted"], table(torch.tensor(row[at:]))]
        ends = row.index(tokenizer.sep_token_id) + 1 + (P if at == 2 else 0)
        types = torch.tensor([[0] * ends + [1] * (len(row) + P - ends)])
        wanted = model(inputs_embeds=torch.cat(parts)[None], token_type_ids=types).last_hidden_state[0]
        states, mask = read(base, *padded([marked, [MARKER, *[5] * 20]]), prompt)
        assert close(base, states[0][mask[0] == 1], wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
@torch.no_grad()
def test_label_words_are_said_after_it(
    name: str, doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    base = doubled(request.getfixturevalue(f"{name}_folder"))
    head = {"word_ids": torch.tensor([[5, 6], [7, -1], [5, 8]])}
    head |= {} if base.decoder else {"opening": torch.tensor([base.seq2seq.config.decoder_start_token_id])}
    prompt = prompt_for(base)
    together = word_scores(base, *padded(ROWS), prompt, head)
    for row, scores in zip(ROWS, together, strict=True):
        assert close(base, scores, word_scores(base, *padded([row]), prompt, head)[0])
    if base.decoder:  # the chain rule, token after token
        said = [hidden_states(base, *padded([[*ROWS[0], *stem]]), prompt)[0, -1] for stem in ([], [5])]
        first, then = (base.lm_head(state).log_softmax(-1) for state in said)
        assert close(base, together[0], torch.stack([first[5] + then[6], first[7], first[5] + then[8]]))


@pytest.mark.parametrize("text", ["{text} {prompt} again", "{prompt} {text}", "my {prompt} {text}", "{text}{prompt}"])
def test_a_minted_prompt_answers_as_the_model_it_came_from(
    mint_on: Callable[..., Any], any_folder: Path, text: str
) -> None:
    minted = mint_on(any_folder, "prompt-tuning", template=text)
    assert read_prompt(minted.folder).card["method"]["place"].startswith("at the template's {prompt}")
    predictor = load_predictor(minted.folder, any_folder)  # replays the proof, of rows answered alone, as one batch
    assert predictor.proven_within < 1e-4
    assert predictor.prompt.tensors.keys() == {"inserted"}


@pytest.mark.parametrize("method", ["p-tuning", "residual", "superpos"])
def test_what_folds_to_vectors_may_be_inserted(mint_on: Callable[..., Any], any_folder: Path, method: str) -> None:
    minted = mint_on(any_folder, method, template="{text} {prompt} again")
    assert load_predictor(minted.folder, any_folder).prompt.tensors["inserted"].shape[0] == 4


def test_an_engine_answers_it_among_others(mint_on: Callable[..., Any], any_folder: Path) -> None:
    engine = Engine(any_folder)
    names = {"inside": "{text} {prompt} again", "before": "{text} again", "keys": "{text}"}
    for name, text in names.items():
        method = "p-tuning-v2" if name == "keys" else "prompt-tuning"
        engine.add(name, mint_on(any_folder, method, template=text).folder)
    texts = ["my invoice", "the password is wrong", "please help me with my refund today", "card"]
    asked = [(name, each) for each in texts for name in names]
    prompts = engine.prompts()
    together = logits(engine.base, engine.tokenizer, [(prompts[name], each) for name, each in asked])
    for (name, each), found in zip(asked, together, strict=True):
        (alone,) = logits(engine.base, engine.tokenizer, [(prompts[name], each)])
        assert torch.allclose(found, alone, rtol=0, atol=1e-5)
