"""Texts as people also write them: with slips of the finger, in capitals, without points and commas, cut off.

What an example is about stays, so its label does. Only the example's own texts are disturbed, never a template's words.
Each example is disturbed by a generator of its own, seeded by the disturbance and the example's id: new data leave the
others as they were, and every method is asked the same.
"""

from __future__ import annotations

import math
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.data.splits import text_columns
from pipelines.data.validate import write_rows
from pipelines.digests import digest_json
from pipelines.memo import Stage
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree

STAGE = Stage("disturb", 1)
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    key: "".join(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    for row in KEYBOARD
    for place, key in enumerate(row)
}


def disturb_split(
    store: Store, split_tree: str, kind: str, rate: float | None, seed: int, cache: Path
) -> dict[str, Any]:
    """`{tree, changed}`: a split with its texts disturbed, and how many examples are not what they were.

    Args:
        store: holds the split, a folder with examples.parquet, and keeps the disturbed one.
        split_tree: of the split.
        kind: a name of `disturbed`.
        rate: as there.
        seed: another one makes other slips.
        cache: for the split.
    """
    rows = pd.read_parquet(load_tree(store, split_tree, cache) / "examples.parquet")
    before = {column: list(rows[column]) for column in text_columns(rows)}
    generators = [np.random.default_rng(int(digest_json([seed, kind, rate, name])[:16], 16)) for name in rows["id"]]
    after = {
        column: [disturbed(text, kind, rate, rng) for text, rng in zip(texts, generators, strict=True)]
        for column, texts in before.items()
    }
    others = sum(
        old != new
        for old, new in zip(zip(*before.values(), strict=True), zip(*after.values(), strict=True), strict=True)
    )
    with tempfile.TemporaryDirectory(prefix="promptmint-disturb-") as name:
        write_rows(rows.assign(**after), Path(name) / "examples.parquet")
        return {"tree": save_tree(store, Path(name)), "changed": others}


def disturbed(text: str, kind: str, rate: float | None, rng: np.random.Generator) -> str:
    """A text disturbed in one way; what nothing would be left of stays as it is.

    Args:
        text: what somebody wrote.
        kind: `typos`, `lower`, `upper`, `title`, `punctuation` (all of it left out) or `truncation`.
        rate: typos: the share of the letters that are mistyped; truncation: that of the words cut off at the end.
        rng: of this text alone.
    """
    match kind:
        case "typos":
            changed = _mistyped(text, rate or 0.0, rng)
        case "lower":
            changed = text.lower()
        case "upper":
            changed = text.upper()
        case "title":
            changed = re.sub(r"\S+", lambda word: word[0].capitalize(), text)
        case "punctuation":
            changed = "".join(letter for letter in text if not unicodedata.category(letter).startswith("P"))
        case "truncation":
            changed = _cut_off(text, rate or 0.0)
        case _:
            raise ValueError(f"no disturbance is called {kind!r}")
    return changed if changed.strip() else text


def _mistyped(text: str, rate: float, rng: np.random.Generator) -> str:
    """Some letters swapped with the next one, left out, doubled, or hit on the key beside theirs, all four as often.

    A letter that has no next one in its word, or none beside it on the keyboard, is doubled in the place of that.
    """
    slips, ways = rng.random(len(text)) < rate, rng.integers(4, size=len(text))
    sides = rng.integers(2, size=len(text))
    typed: list[str] = []
    place = 0
    while place < len(text):
        letter, following = text[place], text[place + 1 : place + 2]
        beside = NEIGHBOURS.get(letter.lower())
        if not (slips[place] and letter.isalpha()):
            typed.append(letter)
        elif ways[place] == 0 and following.isalpha():
            typed += [following, letter]
            place += 1
        elif ways[place] == 1:
            pass
        elif ways[place] == 2 and beside:
            hit = beside[sides[place] % len(beside)]
            typed.append(hit.upper() if letter.isupper() else hit)
        else:
            typed += [letter, letter]
        place += 1
    return "".join(typed)


def _cut_off(text: str, rate: float) -> str:
    """The text without its last words; the first one stays."""
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    keep = max(1, len(ends) - math.floor(len(ends) * rate))
    return text[: ends[keep - 1]] if ends else text
