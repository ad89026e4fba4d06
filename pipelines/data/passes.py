"""The rows of a snapshot in three passes, each in bounded memory: contract, sides, files.

1. `gather`: the files chunk by chunk through the contract; what is accepted goes into buckets by the hash of its text,
   so that every copy of a text is in one of them.
2. `divide`: bucket by bucket, each row its side; leaks and copies are found here. What stays goes into buckets by split
   and id.
3. `publish`: bucket by bucket, sorted by id, into the files of the splits.

What decides a row's place depends on its text and label alone, so the files are the same in whatever chunks, files or
order the rows arrive. A bucket is in memory as a whole; only copies of one text cannot be spread over several.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.data.buckets import GROUP_ROWS, Buckets
from pipelines.data.contract import as_label, check_rows, slice_column
from pipelines.data.near import Signatures
from pipelines.data.reading import read_rows
from pipelines.data.splits import (
    SPLITS,
    TRACED,
    normal_texts,
    split_rows,
    text_columns,
    truth_column,
    written_columns,
)
from pipelines.data.writing import Spool, Writer, frame_of, table_of
from pipelines.digests import canonical_json
from pipelines.recipe import Data

TARGET = "(target)"
STRANGE = 1000  # where the wrong column was named, every row has its own
BUCKETS = 256  # 10 million rows of 200 characters make buckets of 8 MB


@dataclass
class Counts:
    """What is counted while the rows go by.

    Attributes:
        near: training rows that resemble another one; they are kept.
        near_leaks: of the leaks, those that resemble a protected text and do not repeat it.
        reasons: how many rows have each kind of fault.
        strange: how many rows have each label that the recipe does not know, of the first STRANGE such labels.
        masked: how many personal data of each kind were masked.
        named: the sides that the data name.
        labels: how many rows each `(split, label)` has; where there are targets, they all count as the label TARGET.
        slices: `{column: {value: rows in the test split}}`, values that only other splits have included.
    """

    read: int = 0
    accepted: int = 0
    leaks: int = 0
    duplicates: int = 0
    near: int = 0
    near_leaks: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    strange: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    named: set[str] = field(default_factory=set)
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    slices: dict[str, Counter[str]] = field(default_factory=dict)

    def split(self, side: str) -> int:
        """How many examples a split has."""
        return sum(count for (split, _), count in self.labels.items() if split == side)


def accepted_schema(data: Data) -> pa.Schema:
    """The columns of an accepted row."""
    names = [*_texts(data), data.truth, "split", *map(slice_column, data.slices), "source_file"]
    return pa.schema([*((name, pa.string()) for name in names), ("source_row", pa.int64()), ("arrival", pa.int64())])


def gather(files: Mapping[str, Path], data: Data, into: Buckets, quarantine: Spool) -> Counts:
    """All rows through the contract: the accepted ones by the hash of their text, the others into quarantine.

    Raises:
        DataError: a file that cannot be read, or one that lacks a column the recipe names.
    """
    counts = Counts()
    for name, path in files.items():
        for rows in read_rows(path, name, data.encoding):
            checked = check_rows({name: rows}, data)
            arrival = range(counts.accepted, counts.accepted + len(checked.accepted))
            counts.read += checked.read
            counts.accepted += len(checked.accepted)
            counts.reasons.update(checked.reasons)
            counts.masked.update(checked.masked)
            _note_strange(counts, checked.quarantine, data)
            counts.named |= set(checked.accepted["split"].dropna())
            quarantine.add(checked.quarantine)
            normal = normal_texts(checked.accepted).to_numpy(object)
            places = (pd.util.hash_array(normal, categorize=False) % BUCKETS).astype(np.int64)
            into.put(table_of(checked.accepted.assign(arrival=arrival), into.schema), places)
    return counts


def _note_strange(counts: Counts, quarantine: pd.DataFrame, data: Data) -> None:
    """Count the labels of quarantined rows that the recipe does not know."""
    for label in () if data.target else map(as_label, quarantine.get(data.label, ())):
        if not isinstance(label, str) or label in data.labels:
            continue
        if label in counts.strange or len(counts.strange) < STRANGE:
            counts.strange[label] += 1


def divide(accepted: Buckets, data: Data, counts: Counts, into: Buckets, leaks: Buckets) -> None:
    """Each accepted row to its side: into the buckets of its split by its id, or among the leaks as they arrived."""
    for group in accepted.groups():
        split = split_rows(frame_of(group), data, counts.named)
        counts.leaks += len(split.leaks)
        counts.duplicates += split.duplicates
        counts.labels.update(_labelled(split.rows))
        for name in data.slices:
            values, seen = split.rows[slice_column(name)], counts.slices.setdefault(name, Counter())
            seen.update(dict.fromkeys(values, 0))
            seen.update(values[split.rows["split"] == "test"])
        into.put(table_of(split.rows, into.schema), _places(split.rows))
        leaks.put(table_of(split.leaks, leaks.schema), split.leaks["arrival"].to_numpy(np.int64) // GROUP_ROWS)


def _labelled(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The side and the label of each row."""
    return zip(rows["split"], rows["label"] if "label" in rows.columns else [TARGET] * len(rows), strict=True)


def drop_near(divided: Buckets, data: Data, counts: Counts, folder: Path, into: Buckets, leaks: Buckets) -> None:
    """Among the leaks what resembles a text of a more protected split by `data.checks.near_duplicates`, or more."""
    similarity = data.checks.near_duplicates or 1.0
    with Signatures(folder / "signatures") as signatures:
        for group in divided.groups():
            rows = frame_of(group)
            signatures.put(list(normal_texts(rows)), rows["split"].map(SPLITS.index).to_numpy(np.int8))
        found, counts.near = signatures.near(similarity)
    start = 0
    for group in divided.groups():
        rows, near = frame_of(group), found[start : start + len(group)]
        start += len(group)
        kept, dropped = rows[near < 0], rows[near >= 0]
        reasons = [f"the text is nearly one of the {SPLITS[side]} split" for side in near[near >= 0]]
        into.put(table_of(kept, into.schema), _places(kept))
        leaks.put(
            table_of(dropped.assign(reasons=reasons), leaks.schema), dropped["arrival"].to_numpy(np.int64) // GROUP_ROWS
        )
        counts.near_leaks += len(dropped)
        counts.leaks += len(dropped)
        counts.labels.subtract(_labelled(dropped))
    counts.labels = +counts.labels


def publish(divided: Buckets, data: Data, folder: Path, accepted: Path) -> tuple[dict[str, str], pd.DataFrame]:
    """The files of the splits, `folder/SPLIT/examples.parquet`, and of all examples; digests and what a suite judges.

    Returns:
        The digest of each split's examples, and one row per group of examples: see `_about`.
    """
    example = pa.schema([(name, pa.string()) for name in ("id", *_texts(data), data.truth)])
    slices = [(slice_column(name), pa.string()) for name in data.slices]
    whole = pa.schema([*example, ("split", pa.string()), *slices])
    digests = {side: hashlib.sha256() for side in SPLITS}
    groups: list[dict[str, Any]] = []
    files = {}
    for side in SPLITS:
        (folder / side).mkdir()
        files[side] = Writer(folder / side / "examples.parquet", example)
    with files["train"], files["validation"], files["test"], Writer(accepted, whole) as every:
        for side, rows in _sorted(divided):
            files[side].write(table_of(rows, example))
            every.write(table_of(rows, whole))
            digest_rows(digests[side], rows)
            groups.append({"group": f"{side} {len(groups)}", **_about(rows, data)})
    return {side: digest.hexdigest() for side, digest in digests.items()}, pd.DataFrame(groups)


def publish_leaks(leaks: Buckets, path: Path) -> None:
    """The rows that were dropped, in the order in which they came, without their number."""
    schema = leaks.schema.remove(leaks.schema.get_field_index("arrival"))
    with Writer(path, schema) as writer:
        for group in leaks.groups():
            writer.write(group.sort_by("arrival").select(schema.names))


def _places(rows: pd.DataFrame) -> NDArray[np.int64]:
    """The buckets of examples: those of a split beside each other, in the order of the ids."""
    order = {side: place * BUCKETS for place, side in enumerate(SPLITS)}
    places = [order[side] + int(example[:2], 16) for side, example in zip(rows["split"], rows["id"], strict=True)]
    return np.array(places, np.int64)


def digest_rows(digest: Any, rows: pd.DataFrame) -> None:
    """Examples into a digest: one line of canonical JSON for each, `[id, text, label]` or `[id, text, pair, label]`.

    Where there is a target, it stands in the place of the label.
    """
    for row in zip(*(rows[name] for name in ("id", *text_columns(rows), truth_column(rows))), strict=True):
        digest.update(canonical_json(row) + b"\n")


def divided_schema(data: Data) -> pa.Schema:
    """The columns of an example on its side, and where it came from."""
    fields = accepted_schema(data)
    names = [*_texts(data), data.truth, "split", *map(slice_column, data.slices), *TRACED]
    return pa.schema([("id", pa.string()), *(fields.field(name) for name in names)])


def leaks_schema(data: Data) -> pa.Schema:
    """The columns of a row that was dropped."""
    return accepted_schema(data).append(pa.field("reasons", pa.string()))


def _texts(data: Data) -> list[str]:
    return ["text"] if data.pair is None else ["text", "pair"]


def _sorted(divided: Buckets) -> Iterator[tuple[str, pd.DataFrame]]:
    """The examples of one split after the other, each split sorted by id."""
    for group in divided.groups():
        rows = frame_of(group)
        for side in SPLITS:
            if len(part := rows[rows["split"] == side]):
                yield side, part.sort_values("id", ignore_index=True)


def _about(rows: pd.DataFrame, data: Data) -> dict[str, Any]:
    """A group of examples in numbers: rows, the bounds of its texts' lengths, and what should be nowhere."""
    lengths = {name: rows[name].str.strip().str.len() for name in written_columns(rows)}
    bounds = {f"{name}_shortest": int(chars.min()) for name, chars in lengths.items()}
    bounds |= {f"{name}_longest": int(chars.max()) for name, chars in lengths.items()}
    labels = {} if data.target else {"unknown_labels": int((~rows["label"].isin(data.labels)).sum())}
    return {"rows": len(rows), **bounds, **labels, "repeated_ids": int(rows["id"].duplicated().sum())}
