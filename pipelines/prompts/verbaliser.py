"""Label words: how a language model's scores of what it would say next become class scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import RecipeError
from pipelines.inference.base import Base


def word_head(base: Base, tokenizer: Any, words: Sequence[str]) -> dict[str, Tensor]:
    """The head that scores label words, as `inference/label_words.py` reads it.

    `word_ids` [C] where each word is one token, else [C, W] with -1 after shorter words. With an encoder-decoder also
    `opening` [O]: its decoder's start token, and whatever the tokenizer puts before every text, which the decoder has
    learnt to say first (BART's <s>; T5 has none).

    Raises:
        RecipeError: the base has no language-model head, or the words cannot be told apart: see `label_word_ids`.
    """
    if base.lm_head is None:
        raise RecipeError(
            "head.kind = 'verbaliser' scores label words with the base's own language-model head; this base has none. "
            "Set head.kind = 'linear', or choose a decoder or an encoder-decoder."
        )
    spelled = label_word_ids(tokenizer, words, after_space=base.seq2seq is None)
    longest = max(map(len, spelled))
    ids = torch.tensor([[*word, *[-1] * (longest - len(word))] for word in spelled])
    head = {"word_ids": ids[:, 0] if longest == 1 else ids}
    if base.seq2seq is not None:
        head["opening"] = opening(base, tokenizer)
    return head


def opening(base: Base, tokenizer: Any) -> Tensor:
    """What the decoder of an encoder-decoder reads before it speaks, [O].

    Raises:
        RecipeError: the base's config does not name the token that it speaks after.
    """
    return torch.tensor([_decoder_start(base), *_before_text(tokenizer)])


def label_word_ids(tokenizer: Any, words: Sequence[str], after_space: bool = True) -> list[list[int]]:
    """The tokens of each label word, as it stands after a space, or where a text begins; what a verbaliser scores.

    Raises:
        RecipeError: a word has no tokens or unknown ones, or begins another one, so that whoever says that other one
            says it too.
    """
    spelled: list[list[int]] = []
    for word in words:
        written = word.strip()
        tokens = tokenizer.encode(" " + written if after_space else written, add_special_tokens=False)
        if not written or not tokens:  # a byte-level vocabulary has a token for the space before it
            raise RecipeError(f"The label word {word!r} has no tokens in this base's vocabulary. Choose another word.")
        if tokenizer.unk_token_id in tokens:
            raise RecipeError(
                f"The label word {word!r} has tokens that this base does not know: it reads "
                f"{tokenizer.convert_ids_to_tokens(tokens)!r}. Choose another word."
            )
        spelled.append(tokens)
    for (one, begun), (other, tokens) in permutations(zip(words, spelled, strict=True), 2):
        if tokens[: len(begun)] == begun:
            raise RecipeError(
                f"The label word {other!r} begins with all of the tokens of {one!r}, "
                f"{tokenizer.convert_ids_to_tokens(begun)!r}, so a verbaliser cannot tell them apart. Choose words "
                "that do not begin one another, or head.kind = 'linear'."
            )
    return spelled


def _decoder_start(base: Base) -> int:
    """The token that a decoder's text starts after, as the base's config or its generation config says."""
    for config in (base.seq2seq.config, base.seq2seq.generation_config):
        if (start := getattr(config, "decoder_start_token_id", None)) is not None:
            return int(start)
    raise RecipeError(
        "This encoder-decoder's config.json names no decoder_start_token_id, so nobody knows after what its decoder "
        "speaks. Set head.kind = 'linear', or pin a base whose config.json names it."
    )


def _before_text(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before every text."""
    read = tokenizer("a", return_special_tokens_mask=True)
    special: list[int] = read["input_ids"][: read["special_tokens_mask"].index(0)]
    return special
