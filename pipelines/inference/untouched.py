"""The base without the prompt, asked as the prompt asks it: what an answer would be had nothing been tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines.errors import BaseModelError
from pipelines.prompts.artifact import SoftPrompt


@dataclass(frozen=True)
class Untouched:
    """The base as the prompt of this name asks it: in its template, for its label words, and without its vectors."""

    name: str


def answers_untouched(card: Mapping[str, Any]) -> bool:
    """Whether the base alone has an answer: through its own language-model head, as a label word or as a text."""
    return card["head"]["kind"] in ("verbaliser", "generation")


def check_answers_untouched(name: str, card: Mapping[str, Any]) -> None:
    """Let only those prompts pass whose labels the base alone can score. Raises `BaseModelError`."""
    if not answers_untouched(card):
        raise BaseModelError(
            f"The untouched base has no answer in the place of {name!r}: the prompt is read by a linear head that was "
            "trained with it, and an untrained one knows nothing. Zero-shot answers take a prompt with label words "
            "(head.kind = 'verbaliser')."
        )


def without_vectors(prompt: SoftPrompt) -> SoftPrompt:
    """The template and head of a prompt and nothing to steer with, under a name of its own for batches."""
    return replace(prompt, tensors={}, digest=f"{prompt.digest}, untouched")
