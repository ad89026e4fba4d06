"""Label words: how a language model's next-token scores become class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.errors import RecipeError


def label_word_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """The first token of each label word, as it stands after a space; what a verbaliser scores.

    Raises:
        RecipeError: a word has no token, or two words start with the same one and cannot be told apart by it.
    """
    firsts = []
    for word in words:
        tokens = tokenizer.encode(" " + word.strip(), add_special_tokens=False)
        if not word.strip() or not tokens:  # a byte-level vocabulary has a token for the space before it
            raise RecipeError(f"The label word {word!r} has no tokens in this base's vocabulary. Choose another word.")
        firsts.append(tokens[0])
    for place, token in enumerate(firsts):
        if (twin := firsts.index(token)) != place:
            raise RecipeError(
                f"The label words {words[twin]!r} and {words[place]!r} start with the same token "
                f"{tokenizer.convert_ids_to_tokens(token)!r}, so a verbaliser cannot tell them apart. Choose words "
                "that start differently, or head.kind = 'linear'."
            )
    return firsts
