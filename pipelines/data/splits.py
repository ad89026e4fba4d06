"""Who is trained on, who tunes, who is held out: decided by what a text says, never by where it stands.

A text's side depends on nothing but the text: adding data moves no example, and copies of a text, however they are
cased or spaced, never straddle two sides. A pair of texts counts as one text here: pairs that share one of the two may
stand on two sides, unless the data name the sides.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from pipelines.recipe import Data

SPLITS = ("train", "validation", "test")
ALIASES = {
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
}  # what a split column may say, besides SPLITS

Salt = Literal["split", "validation"]


def normalised(text: str) -> str:
    """The text that duplicates share: NFKC, casefolded, one space where there was any white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_columns(rows: pd.DataFrame) -> list[str]:
    """`text`, and `pair` where the rows have two texts."""
    return [name for name in ("text", "pair") if name in rows.columns]


def normal_texts(rows: pd.DataFrame) -> pd.Series:
    """What duplicates share, of one text or two; a separator that is white space stands in no normalised text."""
    parts = [rows[name].map(normalised) for name in text_columns(rows)]
    joined = ["\x1f".join(texts) for texts in zip(*parts, strict=True)]
    return pd.Series(joined, rows.index, dtype=object)


def position(normal: str, salt: Salt = "split") -> float:
    """Where a normalised text falls in [0, 1): uniform over texts, independent between salts."""
    digest = hashlib.sha256(f"promptmint {salt} 1\0{normal}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def example_id(normal: str, label: str, occurrence: int) -> str:
    """The name of an example: SHA-256 of its normalised text, its label and which copy of them it is."""
    return hashlib.sha256(f"{normal}\0{label}\0{occurrence}".encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Examples with their side.

    Attributes:
        rows: columns id, text, pair (where there is one), label, split, slices if any; train, validation, test, each
            sorted by id.
        leaks: the rows that were dropped, as they came, with `reasons`.
        duplicates: rows whose exact text occurs earlier in the same split; they are kept.
    """

    rows: pd.DataFrame
    leaks: pd.DataFrame
    duplicates: int


def split_rows(accepted: pd.DataFrame, data: Data) -> Split:
    """The accepted rows (columns text, perhaps pair, label, split, and any others), each on one side.

    A side that the data name is honoured. Without test rows the test split is carved from the training rows, without
    validation rows so is the validation split. A training or validation row that repeats a test text is dropped, and so
    is a training row that repeats a validation text.
    """
    normal = normal_texts(accepted)
    side = accepted["split"].where(accepted["split"].notna(), "train").astype(object)
    carved: list[tuple[str, Salt, float]] = [
        ("test", "split", data.test_fraction),
        ("validation", "validation", data.validation_fraction),
    ]
    for target, salt, fraction in carved:
        if not (side == target).any():
            taken = (side == "train") & (normal.map(lambda text, salt=salt: position(text, salt)) < fraction)
            side = side.where(~taken, target)
    leaked_from = _leaked_from(normal, side)
    leaks = accepted.assign(split=side)[leaked_from.notna()]
    leaks = leaks.assign(reasons=[f"the text also occurs in the {split} split" for split in leaked_from.dropna()])
    texts, slices = text_columns(accepted), [name for name in accepted.columns if name.startswith("slice:")]
    kept = accepted[[*texts, "label", *slices]].assign(split=side, normal=normal)[leaked_from.isna()]
    return Split(_identified(kept, slices), leaks, int(kept.duplicated(["split", *texts]).sum()))


def _leaked_from(normal: pd.Series, side: pd.Series) -> pd.Series:
    """For each row the more protected split that holds the same text, or None."""
    held_out = set(normal[side == "test"])
    tuned_on = set(normal[side == "validation"])
    leaked: pd.Series = pd.Series(None, index=normal.index, dtype=object)
    leaked[(side == "train") & normal.isin(tuned_on)] = "validation"
    leaked[(side != "test") & normal.isin(held_out)] = "test"
    return leaked


def _identified(kept: pd.DataFrame, slices: list[str]) -> pd.DataFrame:
    """The rows with their ids, in an order that is the same in whatever order they arrived."""
    texts = text_columns(kept)
    kept = kept.sort_values(["normal", "label", *texts, *slices], kind="stable")
    occurrence = kept.groupby(["normal", "label"], sort=False).cumcount()
    ids = [example_id(*row) for row in zip(kept["normal"], kept["label"], occurrence, strict=True)]
    kept = kept.assign(id=ids, order=kept["split"].map(SPLITS.index)).sort_values(["order", "id"])
    return kept[["id", *texts, "label", "split", *slices]].reset_index(drop=True)
