"""The head of a prompt that answers with a text: nothing to train, only how the base is let speak."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.errors import RecipeError
from pipelines.inference.base import Base
from pipelines.prompts.verbaliser import opening
from pipelines.tokens.targets import check_writes, end_tokens


def writing_head(base: Base, tokenizer: Any) -> dict[str, Tensor]:
    """`opening` [O] and `ends` [E], as `inference/writing.py` reads them.

    Raises:
        RecipeError: the base is an encoder, or does not say where a text begins or ends.
    """
    config = base.whole.config.to_dict()
    check_writes(config)
    if base.lm_head is None:
        raise RecipeError("head.kind = 'generation' needs a base with a language-model head; this one has none.")
    begins = opening(base, tokenizer) if base.seq2seq is not None else torch.empty(0, dtype=torch.long)
    return {"opening": begins, "ends": torch.tensor(end_tokens(config, tokenizer))}
