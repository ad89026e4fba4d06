"""A text is written token by token as if all before it were read anew, whatever its company in the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import padded
from pipelines.inference.generation import texts_written
from pipelines.inference.writing import target_logits, written
from pipelines.prompts.writer import writing_head
from pipelines.recipe import Prompt
from pipelines.tokens.template import MARKER
from pipelines.training.tuned import Tuned, tune

ROWS = [[7, 9, 11, 13, 8, 10], [12, 9], [20, 21, 22, 23, 24, 25, 26, 27, 28], [30]]
ON_DECODERS = ("prompt-tuning", "p-tuning-v2", "lopa", "marked")
CASES = [(base, method) for base in ("gpt2", "llama") for method in ON_DECODERS]
CASES += [(base, method) for base in ("t5", "bart") for method in ("prompt-tuning", "p-tuning-v2", "dept", "marked")]


def tuned_on(folder: Path, method: str) -> tuple[Tuned, list[list[int]]]:
    """A prompt at its start on a base, and the rows that it answers."""
    marked = method == "marked"
    settings = {"method": "prompt-tuning" if marked else method, "tokens": 3, "rate": 0.1, "init_scale": 1.0}
    base = load_base(folder)
    head = writing_head(base, AutoTokenizer.from_pretrained(folder))
    tuned = tune(base, Prompt.model_validate(settings), head, seed=5, marked=marked).eval()
    rows = [[*row[:1], MARKER, *row[1:]] for row in ROWS] if marked else ROWS
    return tuned, rows


@torch.no_grad()
def naive(base: Base, row: list[int], prompt: Any, head: dict[str, Tensor], count: int) -> list[int]:
    """The likeliest token each time, nothing kept from the one before."""
    said: list[int] = []
    for _ in range(count):
        targets = torch.tensor([[*said, 0]])
        token = int(target_logits(base, *padded([row]), prompt, head, targets)[-1].argmax())
        if token in head["ends"].tolist():
            break
        said.append(token)
    return said


@pytest.mark.parametrize(("base", "method"), CASES)
def test_a_batch_writes_what_each_row_would_alone_reading_everything_anew(
    base: str, method: str, request: pytest.FixtureRequest
) -> None:
    tuned, rows = tuned_on(request.getfixturevalue(f"{base}_folder"), method)
    prompt, head = tuned.folded(), tuned.head_tensors()
    wanted = [naive(tuned.base, row, prompt, head, 7) for row in rows]
    steps = list(written(tuned.base, rows, prompt, head, 7))
    found = [[token for token in own if token is not None] for own in zip(*steps, strict=True)]
    assert found == wanted
    assert len({tuple(own) for own in found}) > 1  # prompt and text are heard


def test_padding_changes_no_logit_of_a_target(llama_folder: Path) -> None:
    tuned, rows = tuned_on(llama_folder, "lopa")
    targets = torch.tensor([[5, 6, 7], [8, -1, -1], [9, 10, -1], [11, 12, 13]])
    together = tuned(*padded(rows), targets)
    alone = [
        tuned(*padded([row]), target[target >= 0][None]) for row, target in zip(rows, targets, strict=True)
    ]  # fmt: skip
    assert together.shape[0] == 9
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_text_ends_with_its_end_token_and_where_the_context_is_full(gpt2_folder: Path) -> None:
    tuned, rows = tuned_on(gpt2_folder, "p-tuning-v2")
    tokenizer, prompt, head = AutoTokenizer.from_pretrained(gpt2_folder), tuned.folded(), tuned.head_tensors()
    endless = {**head, "ends": head["ends"][:0]}
    room = [sum(step[row] is not None for step in written(tuned.base, rows, prompt, endless, 500)) for row in range(4)]
    assert room == [64 - 3 - len(row) + 1 for row in rows]
    (first,) = next(written(tuned.base, rows[:1], prompt, endless, 1))
    assert texts_written(tuned.base, tokenizer, rows[:1], prompt, {**head, "ends": torch.tensor([first])}, 9, 4) == [""]
