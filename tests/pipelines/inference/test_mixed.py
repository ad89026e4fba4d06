"""Rows that follow prompts of their own in one batch are what they are alone, on every architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from pipelines.errors import DataError
from pipelines.inference import mixed
from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import hidden_states, padded, read_once
from pipelines.inference.mixed import logits, mixed_states
from pipelines.prompts.artifact import SoftPrompt

ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2], [3, 4, 5]]
KINDS = {
    "nothing": ["none"],
    "input": ["input 4"],
    "input, two lengths": ["input 2", "input 5"],
    "keys": ["keys 3"],
    "keys, two lengths": ["keys 4", "keys 1"],
    "everything": ["keys 4", "input 3", "none", "keys 2", "input 5", "input 1"],
}
# Llama's norms and rotary angles, and T5's norms, are float32 in any case.
TOLERANCE = {"bert": 1e-10, "gpt2": 1e-10, "llama": 1e-5, "t5": 1e-5, "bart": 1e-10}


def prompt_for(base: Base, kind: str, seed: int) -> dict[str, Tensor]:
    """A prompt with entries of N(0, 1): `none`, or `input P`, or `keys P`."""
    if kind == "none":
        return {}
    place, tokens = kind.split()
    layer = base.layers[0]
    shape = (len(base.layers), layer.kv_heads, int(tokens), layer.head_width)
    shapes = {"input": {"embeddings": (int(tokens), base.hidden_width)}, "keys": {"keys": shape, "values": shape}}
    generator = torch.Generator().manual_seed(seed)
    dtype = base.embeddings.weight.dtype
    return {name: torch.randn(*size, generator=generator).to(dtype) for name, size in shapes[place].items()}


def row_prompts(base: Base, kinds: list[str]) -> list[Mapping[str, Tensor]]:
    return [prompt_for(base, kinds[row % len(kinds)], row) for row in range(len(ROWS))]


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_a_row_is_what_it_is_alone(base: Base, kinds: list[str]) -> None:
    prompts = row_prompts(base, kinds)
    states, text = mixed_states(base, ROWS, prompts)
    assert text.sum(1).tolist() == [len(row) for row in ROWS]
    for row, prompt, found, where in zip(ROWS, prompts, states, text.bool(), strict=True):
        wanted = hidden_states(base, *padded([row]), prompt)[0]
        assert torch.allclose(found[where], wanted, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_decoder_may_read_its_input_prompts_before(
    name: str, doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    base = doubled(request.getfixturevalue(f"{name}_folder"))
    prompts = row_prompts(base, KINDS["everything"])
    found = []
    for each in (prompts, [read_once(base, prompt) for prompt in prompts]):
        states, text = mixed_states(base, ROWS, each)
        found.append(states[text.bool()])
    assert torch.allclose(*found, rtol=0, atol=TOLERANCE[name])


@torch.no_grad()
def test_rows_of_one_length_need_no_mask_and_lose_nothing(base: Base) -> None:
    """With no padding a base builds no mask of its own, and the prefixes must bring theirs."""
    rows = [[5, 9, 12], [6, 21, 14]]
    prompts = [prompt_for(base, "keys 4", 1), prompt_for(base, "keys 2", 2)]
    states, _ = mixed_states(base, rows, prompts)
    for row, prompt, found in zip(rows, prompts, states, strict=True):
        wanted = hidden_states(base, *padded([row]), prompt)[0]
        assert torch.allclose(found, wanted, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


@torch.no_grad()
def test_a_long_prompt_and_a_long_text_need_not_fit_the_context_together(base: Base) -> None:
    """64 positions each; the padding of the row with the prompt would lie at the 100th."""
    rows, prompts = [[5, 9], [7] * 60], [prompt_for(base, "keys 40", 1), prompt_for(base, "none", 2)]
    states, text = mixed_states(base, rows, prompts)
    for row, prompt, found, where in zip(rows, prompts, states, text.bool(), strict=True):
        wanted = hidden_states(base, *padded([row]), prompt)[0]
        assert torch.allclose(found[where], wanted, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


def requests_for(base: Base, count: int) -> list[tuple[SoftPrompt, str]]:
    """Texts for three prompts: of two kinds, with two and with five classes, in two templates."""
    generator = torch.Generator().manual_seed(0)
    prompts = []
    for number, (kind, classes, template) in enumerate(
        [("keys 3", 2, "{text}"), ("input 2", 5, "my {text} again"), ("keys 1", 5, "{text}")]
    ):
        weight = 0.1 * torch.randn(classes, base.hidden_width, generator=generator)
        head = {"weight": weight, "bias": torch.zeros(classes)}
        card = {
            "head": {"pooling": base.pooling},
            "template": {"text": template, "max_tokens": 32},
            "labels": [str(label) for label in range(classes)],
        }
        prompts.append(SoftPrompt(card, prompt_for(base, kind, number), head, f"digest {number}"))
    words = ["password", "invoice today", "the refund", "why does nobody answer my question about the login"]
    return [(prompts[place * 7 % 3], words[place * 5 % 4]) for place in range(count)]


@pytest.mark.parametrize("batch_rows", [1, 3, 64])
def test_logits_come_in_the_order_of_the_requests(
    any_folder: Path, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tokenizer = load_base(any_folder), AutoTokenizer.from_pretrained(any_folder)
    requests = requests_for(base, 11)
    wanted = [logits(base, tokenizer, [request])[0] for request in requests]
    monkeypatch.setattr(mixed, "BATCH_ROWS", batch_rows)
    found = logits(base, tokenizer, requests)
    for (prompt, _), row, alone in zip(requests, found, wanted, strict=True):
        assert row.shape == (len(prompt.labels),)
        assert torch.allclose(row, alone, rtol=0, atol=1e-4)
    assert logits(base, tokenizer, []) == []


def test_a_prompt_of_another_kind_keeps_to_itself(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what a prompt holds cannot be stacked with others, its rows still share a pass with each other."""
    base, tokenizer = load_base(gpt2_folder), AutoTokenizer.from_pretrained(gpt2_folder)
    requests = requests_for(base, 9)
    wanted = logits(base, tokenizer, requests)
    own = {prompt.digest: prompt for prompt, _ in requests}
    strange = replace(own["digest 0"], tensors={**own["digest 0"].tensors, "gate": torch.zeros(1)})
    monkeypatch.setattr(mixed, "PASS_COST", mixed.FEW_PASSES)
    seen: list[Any] = []
    run = mixed._scores
    monkeypatch.setattr(mixed, "_scores", lambda base, rows, prompts: seen.append(prompts) or run(base, rows, prompts))
    requests = [(strange if prompt.digest == "digest 0" else prompt, text) for prompt, text in requests]
    for left, right in zip(logits(base, tokenizer, requests), wanted, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=1e-5)
    assert sorted(len({prompt.digest for prompt in prompts}) for prompts in seen) == [1, 2]


def test_a_text_without_tokens_is_refused(gpt2_folder: Path) -> None:
    base, tokenizer = load_base(gpt2_folder), AutoTokenizer.from_pretrained(gpt2_folder)
    (prompt, _), *_ = requests_for(base, 1)
    with pytest.raises(DataError, match=r"Text 1 \(counted from 0\) is ''.* no token"):
        logits(base, tokenizer, [(prompt, "a refund"), (prompt, "")])
