"""An example as the base reads it: the text set into its template, as token ids, never longer than allowed.

What is too long loses the end of its text. The words of the template and the tokenizer's special tokens stay, because
heads read them: a decoder answers after the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BaseModelError, RecipeError
from ..recipe import Template


@dataclass(frozen=True)
class Encoded:
    """One text as token ids, and whether its end was cut."""

    input_ids: list[int]
    truncated: bool


def encode(tokenizer: Any, template: Template, texts: Sequence[str]) -> list[Encoded]:
    """The texts in their template as ids, each at most `template.max_tokens` long, special tokens included.

    `tokenizer` is a fast tokenizer of transformers; special tokens are added as it does by default.

    Raises:
        BaseModelError: the tokenizer does not say which characters a token stands for.
        RecipeError: the template leaves no room for a text.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BaseModelError(
            f"The tokenizer {type(tokenizer).__name__!r} is not a fast one, so a text cannot be cut without "
            "its template. Pin a base whose folder holds tokenizer.json."
        )
    if not texts:
        return []
    head, tail = template.text.split("{text}")
    batch = tokenizer(
        [head + text + tail for text in texts],
        return_offsets_mapping=True,
        verbose=False,
    )
    encoded = []
    for ids, offsets, text in zip(batch["input_ids"], batch["offset_mapping"], texts, strict=True):
        excess = len(ids) - template.max_tokens
        if excess > 0:
            start, end = len(head), len(head) + len(text)
            # Special tokens lie at (0, 0). Byte-level tokenizers trim white space off the left: a token of nothing else
            # is empty, at its right end.
            of_text = [i for i, (a, b) in enumerate(offsets) if start <= a and start < b <= end]
            if len(of_text) <= excess:
                raise RecipeError(_no_room(template, len(ids) - len(of_text)))
            cut = set(of_text[-excess:])
            ids = [token for i, token in enumerate(ids) if i not in cut]
        encoded.append(Encoded(ids, excess > 0))
    return encoded


def _no_room(template: Template, fixed: int) -> str:
    return (
        f"The template {template.text!r} leaves no room for a text: it and the special tokens take {fixed} of "
        f"{template.max_tokens} tokens. Raise template.max_tokens or shorten the template."
    )
