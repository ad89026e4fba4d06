"""Who is trained on, who tunes, who is held out: decided by what a text says, never by where it stands.

A text's side depends on nothing but the text: adding data moves no example, and copies of a text, however they are
cased or spaced, never straddle two sides. A pair of texts counts as one text here: pairs that share one of the two may
stand on two sides, unless the data name the sides. Rows with the same text and several targets, each a right answer
to it, are on one side for the same reason.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection
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

TRACED = ("source_file", "source_row", "arrival")  # where a row came from, and when among all that were accepted

Salt = Literal["split", "validation"]


def normalised(text: str) -> str:
    """The text that duplicates share: NFKC, casefolded, one space where there was any white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_columns(rows: pd.DataFrame) -> list[str]:
    """`text`, and `pair` where the rows have two texts."""
    return [name for name in ("text", "pair") if name in rows.columns]


def truth_column(rows: pd.DataFrame) -> str:
    """`target` where the rows have a text to be written, else `label`."""
    return "target" if "target" in rows.columns else "label"


def written_columns(rows: pd.DataFrame) -> list[str]:
    """Every column of texts: those that are read, and `target` where the rows have one."""
    return [*text_columns(rows), *(["target"] if "target" in rows.columns else [])]


def normal_texts(rows: pd.DataFrame) -> pd.Series:
    """What duplicates share, of one text or two; a separator that is white space stands in no normalised text."""
    parts = [rows[name].map(normalised) for name in text_columns(rows)]
    joined = ["\x1f".join(texts) for texts in zip(*parts, strict=True)]
    return pd.Series(joined, rows.index, dtype=object)


def position(normal: str, salt: Salt = "split") -> float:
    """Where a normalised text falls in [0, 1): uniform over texts, independent between salts."""
    digest = hashlib.sha256(f"promptmint {salt} 1\0{normal}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def example_id(normal: str, truth: str, occurrence: int) -> str:
    """The name of an example: SHA-256 of its normalised text, its label or target, and which copy of them it is."""
    return hashlib.sha256(f"{normal}\0{truth}\0{occurrence}".encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Examples with their side.

    Attributes:
        rows: columns id, text, pair (where there is one), label or target, split, slices if any; train, validation,
            test, each sorted by id.
        leaks: the rows that were dropped, as they came, with `reasons`.
        duplicates: rows whose exact text, and target if there is one, occur earlier in the same split; they are kept.
    """

    rows: pd.DataFrame
    leaks: pd.DataFrame
    duplicates: int


def split_rows(accepted: pd.DataFrame, data: Data, named: Collection[str] | None = None) -> Split:
    """The accepted rows (columns text, perhaps pair, label or target, split, and any others), each on one side.

    A side that the data name is honoured. Without test rows the test split is carved from the training rows, without
    validation rows so is the validation split. A training or validation row that repeats a test text is dropped, and so
    is a training row that repeats a validation text. Where `accepted` is a part of the data, with every copy of its
    texts, `named` are the sides that all of the data name.
    """
    named = set(accepted["split"].dropna()) if named is None else named
    normal = normal_texts(accepted)
    side = accepted["split"].where(accepted["split"].notna(), "train").astype(object)
    carved: list[tuple[str, Salt, float]] = [
        ("test", "split", data.test_fraction),
        ("validation", "validation", data.validation_fraction),
    ]
    for target, salt, fraction in carved:
        if target not in named:
            taken = (side == "train") & (normal.map(lambda text, salt=salt: position(text, salt)) < fraction)
            side = side.where(~taken, target)
    leaked_from = _leaked_from(normal, side)
    leaks = accepted.assign(split=side)[leaked_from.notna()]
    leaks = leaks.assign(reasons=[f"the text also occurs in the {split} split" for split in leaked_from.dropna()])
    texts, slices = text_columns(accepted), [name for name in accepted.columns if name.startswith("slice:")]
    traced = list(TRACED) if "arrival" in accepted.columns else []
    kept = accepted[[*texts, truth_column(accepted), *slices, *traced]].assign(split=side, normal=normal)
    kept = kept[leaked_from.isna()]
    return Split(
        _identified(kept, slices, traced), leaks, int(kept.duplicated(["split", *written_columns(kept)]).sum())
    )


def _leaked_from(normal: pd.Series, side: pd.Series) -> pd.Series:
    """For each row the more protected split that holds the same text, or None."""
    held_out = set(normal[side == "test"])
    tuned_on = set(normal[side == "validation"])
    leaked: pd.Series = pd.Series(None, index=normal.index, dtype=object)
    leaked[(side == "train") & normal.isin(tuned_on)] = "validation"
    leaked[(side != "test") & normal.isin(held_out)] = "test"
    return leaked


def _identified(kept: pd.DataFrame, slices: list[str], traced: list[str]) -> pd.DataFrame:
    """The rows with their ids, in an order that is the same in whatever order they arrived."""
    texts, truth = text_columns(kept), truth_column(kept)
    kept = kept.sort_values(["normal", truth, *texts, *slices], kind="stable")
    occurrence = kept.groupby(["normal", truth], sort=False).cumcount()
    ids = [example_id(*row) for row in zip(kept["normal"], kept[truth], occurrence, strict=True)]
    kept = kept.assign(id=ids, order=kept["split"].map(SPLITS.index)).sort_values(["order", "id"])
    return kept[["id", *texts, truth, "split", *slices, *traced]].reset_index(drop=True)
