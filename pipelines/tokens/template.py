"""An example as the base reads it: its text, or its two, set into a template, as token ids, never longer than allowed.

What is too long loses the end of its text. The words of the template and the tokenizer's special tokens stay, because
heads read them: a decoder answers after the last of them. Of a pair the longer text is cut until both are as long, then
both in turn, the second first; each keeps a token.

Where the template has `{prompt}`, a row has MARKER among its token ids, and the white space before it is left out (at
the start of a segment, that after it): "{text} {prompt} Topic:" is read as "{text} Topic:", the prompt in between. A
token that reaches over the place stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BaseModelError, DataError, RecipeError
from ..recipe import Template

PLACE = re.compile(r"{(text|pair|prompt)}")
SPACE = re.compile(r"^{prompt}\s*|\s*(?={prompt})")
MARKER = -1  # in the place of a soft prompt among token ids; it counts as no token


@dataclass(frozen=True)
class Encoded:
    """One example as token ids, MARKER among them where the template has one, and whether a text's end was cut."""

    input_ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Span:
    """Where a text stands, or a marker of no width: in which segment, from and up to which character."""

    segment: int
    start: int
    end: int


def encode(
    tokenizer: Any, template: Template, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[Encoded]:
    """The examples in their template as ids, at most `template.max_tokens` of them, special tokens included.

    `tokenizer` is a fast tokenizer of transformers; special tokens are added as it does by default, and in the place of
    `{sep}` what it puts between the two segments of a pair. `pairs` are the second texts, as many as `texts`.

    Raises:
        BaseModelError: the tokenizer does not say which characters a token stands for.
        DataError: there are second texts and the template has no place for them, or the other way round.
        RecipeError: the template leaves no room for a text, or the tokenizer has nothing to put in the place of {sep}.
    """
    segments = template.text.split("{sep}")
    _check_tokenizer(tokenizer, template, pair=len(segments) == 2)
    _check_pairs(template, texts, pairs)
    if not texts:
        return []
    second = pairs if pairs is not None else [""] * len(texts)
    filled = [_filled(segments, {"text": text, "pair": pair}) for text, pair in zip(texts, second, strict=True)]
    columns = [list(column) for column in zip(*(written for written, _, _ in filled), strict=True)]
    batch = tokenizer(*columns, return_offsets_mapping=True, verbose=False)
    encoded = []
    for row, (_, spans, marker) in enumerate(filled):
        ids, cut = batch["input_ids"][row], set()
        excess = len(ids) - template.max_tokens
        offsets = list(zip(batch.sequence_ids(row), batch["offset_mapping"][row], strict=True))
        if excess > 0:
            cut = _cut([_tokens_of(span, offsets) for span in spans], excess, template, len(ids))
        before = len(ids) if marker is None else _tokens_before(marker, offsets)
        parts = [[ids[at] for at in part if at not in cut] for part in (range(before), range(before, len(ids)))]
        encoded.append(Encoded([*parts[0], *([] if marker is None else [MARKER]), *parts[1]], excess > 0))
    return encoded


def _check_tokenizer(tokenizer: Any, template: Template, pair: bool) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise BaseModelError(
            f"The tokenizer {type(tokenizer).__name__!r} is not a fast one, so a text cannot be cut without "
            "its template. Pin a base whose folder holds tokenizer.json."
        )
    if pair and tokenizer.num_special_tokens_to_add(True) == tokenizer.num_special_tokens_to_add(False):
        raise RecipeError(
            f"The template {template.text!r} asks for {{sep}}, but this base's tokenizer puts nothing between two "
            "segments. Write the words that shall stand there in its place."
        )


def _check_pairs(template: Template, texts: Sequence[str], pairs: Sequence[str] | None) -> None:
    if template.of_pairs != (pairs is not None):
        wanted, came = ("two texts", "one") if template.of_pairs else ("one text", "two")
        raise DataError(f"The template {template.text!r} takes {wanted} per example, but {came} came. Give {wanted}.")
    if pairs is not None and len(pairs) != len(texts):
        raise DataError(f"There are {len(texts)} first and {len(pairs)} second texts. Give one of each per example.")


def _filled(segments: Sequence[str], example: Mapping[str, str]) -> tuple[list[str], list[Span], Span | None]:
    """The segments with the example's texts in their places, where each text stands, and where the marker does."""
    written, spans, marker = [], [], None
    for number, segment in enumerate(segments):
        so_far = ""
        spaced = SPACE.sub(lambda found: found[0].strip(), segment)
        for turn, part in enumerate(PLACE.split(spaced)):  # words of the template, and names of places, in turn
            if turn % 2 == 0:
                so_far += part
            elif part == "prompt":
                marker = Span(number, len(so_far), len(so_far))
            else:
                spans.append(Span(number, len(so_far), len(so_far) + len(example[part])))
                so_far += example[part]
        written.append(so_far)
    return written, spans, marker


def _tokens_of(span: Span, offsets: Sequence[tuple[int | None, tuple[int, int]]]) -> list[int]:
    """The places of a text's tokens in its row, of whose tokens the segment and the characters are given.

    Special tokens lie at (0, 0). Byte-level tokenizers trim white space off the left: a token of nothing else is empty,
    at its right end.
    """
    return [
        place
        for place, (segment, (start, end)) in enumerate(offsets)
        if segment == span.segment and span.start <= start and span.start < end <= span.end
    ]


def _tokens_before(marker: Span, offsets: Sequence[tuple[int | None, tuple[int, int]]]) -> int:
    """How many tokens of a row stand before the marker: up to the first of its segment that begins at it, or later.

    Where none does, up to the segment's last; a segment without tokens has it at the end of the row.
    """
    inside = [(place, span) for place, (segment, span) in enumerate(offsets) if segment == marker.segment]
    for place, (start, end) in inside:
        if start >= marker.start and end > marker.start:
            return place
    return inside[-1][0] + 1 if inside else len(offsets)


def _cut(places: Sequence[Sequence[int]], excess: int, template: Template, length: int) -> set[int]:
    """Which of a row's `length` tokens go: the last ones of its texts, whose places in the row are given."""
    kept = [len(text) for text in places]
    if sum(kept) - excess < len(kept):
        raise RecipeError(_no_room(template, length - sum(kept)))
    for _ in range(excess):
        longest = max(range(len(kept)), key=lambda text: (kept[text], text))
        kept[longest] -= 1
    return {place for text, count in zip(places, kept, strict=True) for place in text[count:]}


def _no_room(template: Template, fixed: int) -> str:
    return (
        f"The template {template.text!r} leaves no room for a text: it and the special tokens take {fixed} of "
        f"{template.max_tokens} tokens. Raise template.max_tokens or shorten the template."
    )
