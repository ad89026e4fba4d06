"""A snapshot judged: read, contract, splits, expectations; the report and the splits go into the store.

A refused data set is a report whose `ok` is False. Only data that nothing can be learnt from raise.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.data.contract import Checked, as_label, check_rows, slice_column
from pipelines.data.expectations import check_set
from pipelines.data.reading import read_rows
from pipelines.data.splits import SPLITS, Split, split_rows, text_columns
from pipelines.digests import canonical_json, folder_files
from pipelines.errors import DataError, listed
from pipelines.memo import Stage
from pipelines.recipe import Data
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree

STAGE = Stage("validate", 1)
MOST_VALUES = 100  # of a column whose values are slices
REPORTED = 5  # how many kinds of fault a sentence names


def validate(store: Store, snapshot_digest: str, data: Data, cache: Path) -> dict[str, Any]:
    """The report on a snapshot, as small JSON; `ok` says whether the data may be learnt from.

    `tree` holds accepted.parquet, quarantine.parquet, leaks.parquet, expectations.json and data_docs/. Its digest
    changes from run to run, because the Data Docs carry times; `split_trees` (a folder with examples.parquet each) and
    `split_digests` are equal for equal examples, and are what later stages are keyed by.

    Raises:
        DataError: a file that cannot be read, a column that is not there, no rows, an empty split, or one class alone.
        NotInStore: the snapshot is not in the store.
    """
    source = load_tree(store, snapshot_digest, cache)
    names = {path.relative_to(source).as_posix(): path for path in folder_files(source)}
    checked = check_rows({name: read_rows(path, name, data.encoding) for name, path in names.items()}, data)
    split = split_rows(checked.accepted, data)
    _learnable(checked, split, data)
    _sliceable(split, data)
    with tempfile.TemporaryDirectory(prefix="promptmint-validate-") as name:
        folder = Path(name)
        results = check_set(split.rows, data, folder)
        write_rows(split.rows, folder / "accepted.parquet")
        write_rows(checked.quarantine, folder / "quarantine.parquet")
        write_rows(split.leaks, folder / "leaks.parquet")
        tree = save_tree(store, folder)
    problems = [*_quarantine_problems(checked, data), *_expectation_problems(results)]
    sides = {side: split.rows[split.rows["split"] == side] for side in SPLITS}
    return {
        "tree": tree,
        "split_trees": {side: _save_split(store, rows) for side, rows in sides.items()},
        "split_digests": {side: rows_digest(rows) for side, rows in sides.items()},
        "rows": {
            "read": checked.read,
            "accepted": len(split.rows),
            "quarantined": len(checked.quarantine),
            "leaks_dropped": len(split.leaks),
            "duplicates": split.duplicates,
        },
        "splits": {side: len(rows) for side, rows in sides.items()},
        "labels": {side: _label_counts(rows, data) for side, rows in sides.items()},
        "reasons": checked.reasons,
        "expectations": {
            "passed": sum(result["success"] for result in results),
            "failed": [result for result in results if not result["success"]],
        },
        "ok": not problems,
        "problems": problems,
    }


def load_split(store: Store, report_tree: str, split: str, cache: Path) -> pd.DataFrame:
    """The accepted examples of one split (columns id, text, perhaps pair, label), sorted by id.

    Raises:
        DataError: no such split.
        NotInStore: the report is not in the store.
    """
    if split not in SPLITS:
        raise DataError(f"There is no split {split!r}: the splits are {listed(SPLITS)}.")
    rows = pd.read_parquet(load_tree(store, report_tree, cache) / "accepted.parquet")
    return rows.loc[rows["split"] == split, _columns(rows)].reset_index(drop=True)


def load_slices(store: Store, report_tree: str, data: Data, cache: Path) -> dict[str, dict[str, str]]:
    """`{column: {id: value}}` of the test examples, for every column of `data.slices`. Raises `NotInStore`."""
    if not data.slices:
        return {}
    rows = pd.read_parquet(load_tree(store, report_tree, cache) / "accepted.parquet")
    test = rows[rows["split"] == "test"]
    return {name: dict(zip(test["id"], test[slice_column(name)], strict=True)) for name in data.slices}


def rows_digest(rows: pd.DataFrame) -> str:
    """The SHA-256 of examples: one line of canonical JSON for each, in their order.

    A line is `[id, text, label]`, or `[id, text, pair, label]`.
    """
    digest = hashlib.sha256()
    for row in zip(*(rows[name] for name in _columns(rows)), strict=True):
        digest.update(canonical_json(row) + b"\n")
    return digest.hexdigest()


def _columns(rows: pd.DataFrame) -> list[str]:
    """What an example is made of."""
    return ["id", *text_columns(rows), "label"]


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet whose bytes are equal for equal rows: no pandas metadata, no index.

    A column of one type keeps it; a column of many (what a quarantine is full of) is written as text, each value that
    is not a string as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {str(column): _arrow(list(rows[column])) for column in rows.columns}
    pq.write_table(pa.table(columns), path, compression="zstd")


def _arrow(values: list[Any]) -> Any:
    """One column for Parquet, with nulls where pandas has NaN."""
    import pyarrow as pa

    values = [None if isinstance(value, float) and value != value else value for value in values]
    if all(value is None for value in values):
        return pa.array(values, pa.string())
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(
            [value if isinstance(value, str | None) else json.dumps(value, default=str) for value in values],
            pa.string(),
        )
    return column if column.type != pa.struct([]) else pa.array([json.dumps(value) for value in values], pa.string())


def _learnable(checked: Checked, split: Split, data: Data) -> None:
    """Raises `DataError` where there is nothing to learn from, or nothing to judge it by."""
    faults = f" {len(checked.quarantine)} rows were quarantined: {_most_frequent(checked)}." if checked.reasons else ""
    faults += _strange_labels(checked, data)
    if checked.read == 0:
        raise DataError(
            f"The data hold no rows (data.path = {data.path!r}). A file needs at least one row below its header."
        )
    if checked.accepted.empty:
        raise DataError(
            f"No row of {data.path!r} keeps the contract, so there is nothing to learn from.{faults} Mend the data, or "
            "what [data] says of them."
        )
    counts = {side: int((split.rows["split"] == side).sum()) for side in SPLITS}
    if empty := [side for side, count in counts.items() if count == 0]:
        raise DataError(
            f"No rows are left for {listed(empty)} (per split: {counts}; {len(split.leaks)} dropped as leaks).{faults} "
            "Bring more rows, or change data.validation_fraction and data.test_fraction."
        )
    trained = set(split.rows.loc[split.rows["split"] == "train", "label"])
    if len(trained) < 2:
        raise DataError(
            f"The training split has rows of one label alone, {listed(trained)}; learning needs two of "
            f"{listed(data.labels)}.{faults} Bring rows of the other labels."
        )


def _sliceable(split: Split, data: Data) -> None:
    """Raises `DataError` where a column has so many values that no slice of it could be judged."""
    for name in data.slices:
        if (values := split.rows[slice_column(name)].nunique()) > MOST_VALUES:
            raise DataError(
                f"The column {name!r} of data.slices has {values:,} different values, and at most {MOST_VALUES} can be "
                "told apart. Name a column that groups the examples."
            )


def _quarantine_problems(checked: Checked, data: Data) -> Iterable[str]:
    """The sentence on too many quarantined rows, where there are too many."""
    share = len(checked.quarantine) / checked.read
    if share > data.checks.max_quarantined:
        yield (
            f"{len(checked.quarantine)} of {checked.read} rows ({share:.1%}) were quarantined, more than the "
            f"{data.checks.max_quarantined:.1%} of data.checks.max_quarantined: {_most_frequent(checked)}."
            f"{_strange_labels(checked, data)}"
        )


def _expectation_problems(results: list[dict[str, Any]]) -> Iterable[str]:
    """One sentence for every expectation that failed."""
    for result in results:
        if not result["success"]:
            where = f" ({result['column']})" if result["column"] else ""
            observed = json.dumps(result["observed"], ensure_ascii=False)
            yield f"Expected {result['description']}{where}, found {observed}."


def _most_frequent(checked: Checked) -> str:
    """The most frequent kinds of fault with their counts, for a sentence."""
    named = list(checked.reasons.items())[:REPORTED]
    more = f", and {len(checked.reasons) - REPORTED} other kinds" if len(checked.reasons) > REPORTED else ""
    return ", ".join(f"{kind} ({count})" for kind, count in named) + more


def _strange_labels(checked: Checked, data: Data) -> str:
    """A sentence on labels that were renamed, misspelt or are new; nothing where the data have none."""
    found = map(as_label, checked.quarantine.get(data.label, ()))
    strange = Counter(label for label in found if label is not None and label not in data.labels).most_common()
    if not strange:
        return ""
    named = ", ".join(f"{label!r} ({count})" for label, count in strange[:REPORTED])
    more = f" and {len(strange) - REPORTED} others" if len(strange) > REPORTED else ""
    return (
        f" Labels in the data that the recipe does not know: {named}{more}; it knows {listed(data.labels)}. Name them "
        "so in the data, or change data.labels."
    )


def _save_split(store: Store, rows: pd.DataFrame) -> str:
    """The tree of a folder with one file, examples.parquet (columns id, text, perhaps pair, label)."""
    with tempfile.TemporaryDirectory(prefix="promptmint-split-") as name:
        write_rows(rows[_columns(rows)], Path(name) / "examples.parquet")
        return save_tree(store, Path(name))


def _label_counts(rows: pd.DataFrame, data: Data) -> dict[str, int]:
    """How many rows each label of the recipe has, in the recipe's order."""
    counts = rows["label"].value_counts()
    return {label: int(counts.get(label, 0)) for label in data.labels}
