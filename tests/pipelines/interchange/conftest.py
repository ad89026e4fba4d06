"""Minted prompts of every kind, and the answers of promptmint's own forward pass to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.inference.base import load_base
from pipelines.inference.forward import class_scores, hidden_states, padded, pooled
from pipelines.inference.label_words import must_be_read, word_scores
from pipelines.prompts.artifact import read_prompt


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
def own_logits() -> Callable[[Any, list[list[int]], torch.dtype], Tensor]:
    """Class logits of token ids by promptmint's own forward pass: `own_logits(minted, rows, dtype)`."""

    @torch.no_grad()
    def own_logits(minted: Any, rows: list[list[int]], dtype: torch.dtype) -> Tensor:
        prompt, base = read_prompt(minted.folder), load_base(minted.base_folder)
        for part in filter(None, (base.backbone, base.lm_head, base.seq2seq)):
            part.to(dtype)
        ids, mask = padded(rows)
        if must_be_read(base, prompt.head):
            return word_scores(base, ids, mask, prompt.tensors, prompt.head)
        states = hidden_states(base, ids, mask, prompt.tensors)
        return class_scores(base, pooled(states, mask, prompt.card["head"]["pooling"]), prompt.head)

    return own_logits
