"""Minted prompts of every kind, and the answers of promptmint's own forward pass to compare with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.inference.forward import class_scores, hidden_states, load_base, padded, pooled
from pipelines.prompts.artifact import read_prompt

WORDS = ("account", "billing")
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]


@pytest.fixture(scope="session")
def prompt_on(
    mint_on: Callable[..., Any], request: pytest.FixtureRequest
) -> Callable[[str, str, tuple[str, str] | None], Any]:
    """Mints once what several tests use: `prompt_on("llama", "p-tuning-v2", words=None)`."""
    minted: dict[Any, Any] = {}

    def prompt_on(base: str, method: str, words: tuple[str, str] | None = None) -> Any:
        key = (base, method, words)
        if key not in minted:
            minted[key] = mint_on(request.getfixturevalue(f"{base}_folder"), method, words)
        return minted[key]

    return prompt_on


@pytest.fixture(scope="session")
def own_logits() -> Callable[[Path, Path, torch.dtype], Tensor]:
    """Class logits of `ROWS` by promptmint's own forward pass: `own_logits(artifact, base_folder, dtype)`."""

    @torch.no_grad()
    def own_logits(artifact: Path, base_folder: Path, dtype: torch.dtype) -> Tensor:
        prompt, base = read_prompt(artifact), load_base(base_folder)
        base.backbone.to(dtype)
        if base.lm_head is not None:
            base.lm_head.to(dtype)
        ids, mask = padded(ROWS)
        states = hidden_states(base, ids, mask, prompt.tensors)
        return class_scores(base, pooled(states, mask, prompt.card["head"]["pooling"]), prompt.head)

    return own_logits
