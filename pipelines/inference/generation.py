"""Texts that a prompt's base writes: many at once for scoring and batches, one in pieces as they come for serving.

One decoding code, `writing.py`, is behind both.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import BaseModelError
from ..prompts.artifact import SoftPrompt
from ..tokens.targets import end_tokens
from .base import Base
from .buckets import buckets
from .forward import padded
from .mixed import FEW_PASSES, Text, token_ids
from .writing import may_write, target_logits, writes, written

UNASKED = 64  # tokens, where nobody says how many
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer shows of a character whose bytes have not all come yet


def texts_written(
    base: Base, tokenizer: Any, rows: Sequence[Sequence[int]], prompt: Mapping[str, Tensor], head: Mapping[str, Tensor],
    most: int, batch_size: int,
) -> list[str]:  # fmt: skip
    """What the base writes after each row, in the rows' order: the likeliest token each time, at most `most` of them.

    Args:
        base: a decoder, or an encoder-decoder.
        tokenizer: the base's.
        rows: n rows of token ids, each with its marker where the prompt is `inserted`.
        prompt: as `hidden_states` takes it; none for the untouched base.
        head: as in `writing.py`.
        most: tokens of a text.
        batch_size: rows that are written at once.
    """
    found: dict[int, str] = {}
    for batch in _batches(base, [len(row) for row in rows], batch_size):
        tokens: list[list[int]] = [[] for _ in batch]
        for step in written(base, [rows[place] for place in batch], prompt, head, most):
            for row, token in zip(tokens, step, strict=True):
                row += [] if token is None else [token]
        found |= {place: text_of(tokenizer, row) for place, row in zip(batch, tokens, strict=True)}
    return [found[place] for place in range(len(rows))]


def _batches(base: Base, lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Which rows are written at once: of like lengths; of equal ones where a base does not see all that it has read."""
    if base.packs or base.seq2seq is not None:
        yield from buckets(lengths, batch_size, FEW_PASSES)
        return
    alike: dict[int, list[int]] = defaultdict(list)
    for place, length in enumerate(lengths):
        alike[length].append(place)
    for places in alike.values():
        yield from (places[start : start + batch_size] for start in range(0, len(places), batch_size))


@torch.no_grad()
def first_tokens(
    base: Base, row: Sequence[int], prompt: Mapping[str, Tensor], head: Mapping[str, Tensor], count: int
) -> Tensor:
    """The `count` tokens that a text after a row begins with, [1, count], whether or not it would have ended."""
    endless = {**head, "ends": head["ends"][:0]}
    return torch.tensor([[token for (token,) in written(base, [row], prompt, endless, count)]])


@torch.no_grad()
def said_logits(
    base: Base, rows: Sequence[Sequence[int]], prompt: Mapping[str, Tensor], head: Mapping[str, Tensor], said: Tensor
) -> Tensor:
    """The logit of each token that was said [B, K] after a row, given those before it: float32 on the CPU, [B, K]."""
    ids, mask = (part.to(base.device) for part in padded(rows))
    said = said.to(base.device)
    logits = target_logits(base, ids, mask, prompt, head, said)
    return logits.gather(1, said.flatten()[:, None]).view(said.shape).float().cpu()


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Written tokens as a text, without the white space that sets it off from what was read."""
    return _decoded(tokenizer, ids).lstrip()


def written_on(base: Base, tokenizer: Any, prompt: SoftPrompt, text: Text, max_new_tokens: int | None) -> Iterator[str]:
    """Pieces of what the base writes after a text in the prompt's template, the likeliest token each time.

    It ends at an end-of-text token, after `max_new_tokens` (None: 64), or where the base's context is full. A prompt
    that was tuned to write ends after its own `max_new_tokens` where there are fewer; its pieces, joined, are the text
    that `texts_written` gives.

    Raises:
        BaseModelError: an encoder, which does not write, or a prompt that a decoder cannot write on with.
        DataError: the text has no tokens, or is one where the prompt wants two, or the other way round.
    """
    tuned = writes(prompt.head)
    if not may_write(base, prompt.tensors) or not (base.decoder or tuned):
        raise BaseModelError(
            f"This base ({base.backbone.config.model_type!r}) cannot write on after a text with this prompt: it takes "
            "a decoder, whose prompt ends before what is written, or a prompt that was tuned to write "
            "(head.kind = 'generation'). Ask for its labels instead."
        )
    (ids,) = token_ids(tokenizer, [(prompt, text)])
    own = longest(prompt)
    most = min(max_new_tokens or own or UNASKED, own or 2**31)
    if tuned:
        return _without_first_space(_pieces(tokenizer, [], _tokens(base, ids, prompt.tensors, prompt.head, most)))
    ends = end_tokens(base.backbone.config.to_dict(), tokenizer, required=False)
    head = {"ends": torch.tensor(ends, dtype=torch.long)}
    return _pieces(tokenizer, ids, _tokens(base, ids, prompt.tensors, head, most))


def longest(prompt: SoftPrompt) -> int | None:
    """How many tokens a prompt that was tuned to write does write at most; None for others."""
    most: int | None = prompt.card["head"].get("max_new_tokens")
    return most


def _tokens(
    base: Base, ids: Sequence[int], prompt: Mapping[str, Tensor], head: Mapping[str, Tensor], most: int
) -> Iterator[int]:
    """The tokens of one row."""
    return (token for (token,) in written(base, [ids], prompt, head, most) if token is not None)


def _without_first_space(pieces: Iterator[str]) -> Iterator[str]:
    begun = False
    for piece in pieces:
        shown = piece if begun else piece.lstrip()
        begun = begun or bool(shown)
        if shown:
            yield shown


def _pieces(tokenizer: Any, before: Sequence[int], tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to the text; nothing while a character is unfinished."""
    ids = list(before)
    shown = text = _decoded(tokenizer, ids)
    for token in tokens:
        ids.append(token)
        text = _decoded(tokenizer, ids)
        if not text.endswith(UNFINISHED):
            yield text[len(shown) :]
            shown = text
    if text != shown:
        yield text[len(shown) :]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
