"""A snapshot judged: read, contract, splits, expectations; the report and the splits go into the store.

A refused data set is a report whose `ok` is False. Only data that nothing can be learnt from raise.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.data.buckets import GROUP_ROWS, Buckets
from pipelines.data.contract import gathered, slice_column
from pipelines.data.expectations import check_set
from pipelines.data.passes import (
    BUCKETS,
    Counts,
    accepted_schema,
    digest_rows,
    divide,
    divided_schema,
    drop_near,
    gather,
    leaks_schema,
    publish,
    publish_leaks,
)
from pipelines.data.splits import SPLITS
from pipelines.data.writing import Spool
from pipelines.digests import folder_files
from pipelines.errors import DataError, listed
from pipelines.memo import Stage
from pipelines.recipe import Data
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree

STAGE = Stage("validate", 2)
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
    files = {path.relative_to(source).as_posix(): path for path in folder_files(source)}
    with tempfile.TemporaryDirectory(prefix="promptmint-validate-") as name:
        folder = Path(name)
        (report := folder / "report").mkdir()
        quarantine = Spool(folder, gathered)
        with Buckets(folder / "divided", divided_schema(data), len(SPLITS) * BUCKETS) as divided:
            counts = _divided(files, data, folder, divided, quarantine, report / "leaks.parquet")
            _learnable(counts, quarantine.rows, data)
            _sliceable(counts, data)
            digests, groups = publish(divided, data, folder, report / "accepted.parquet")
        results = check_set(groups, counts, data, report)
        quarantine.write(report / "quarantine.parquet")
        tree = save_tree(store, report)
        split_trees = {side: save_tree(store, folder / side) for side in SPLITS}
    problems = [*_quarantine_problems(counts, quarantine.rows, data), *_expectation_problems(results)]
    return {
        "tree": tree,
        "split_trees": split_trees,
        "split_digests": digests,
        "rows": {
            "read": counts.read,
            "accepted": sum(counts.labels.values()),
            "quarantined": quarantine.rows,
            "leaks_dropped": counts.leaks,
            "duplicates": counts.duplicates,
            **_near(counts, data),
        },
        "splits": {side: counts.split(side) for side in SPLITS},
        "labels": {side: {label: counts.labels[side, label] for label in data.labels} for side in SPLITS},
        "reasons": dict(counts.reasons.most_common()),
        **({"masked": dict(sorted(counts.masked.items()))} if data.checks.personal_data == "mask" else {}),
        "expectations": {
            "passed": sum(result["success"] for result in results),
            "failed": [result for result in results if not result["success"]],
        },
        "ok": not problems,
        "problems": problems,
    }


def _divided(
    files: Mapping[str, Path], data: Data, folder: Path, into: Buckets, quarantine: Spool, leaked: Path
) -> Counts:
    """The first two passes: every row of the files is in quarantine, among the leaks, or in a bucket of its split."""
    with Buckets(folder / "accepted", accepted_schema(data), BUCKETS) as accepted:
        counts = gather(files, data, accepted, quarantine)
        with Buckets(folder / "leaks", leaks_schema(data), counts.accepted // GROUP_ROWS + 1) as leaks:
            if data.checks.near_duplicates is None:
                divide(accepted, data, counts, into, leaks)
            else:
                with Buckets(folder / "resembling", into.schema, len(SPLITS) * BUCKETS) as every:
                    divide(accepted, data, counts, every, leaks)
                    drop_near(every, data, counts, folder, into, leaks)
            publish_leaks(leaks, leaked)
    return counts


def load_split(store: Store, report_tree: str, split: str, cache: Path) -> pd.DataFrame:
    """The accepted examples of one split (columns id, text, perhaps pair, label or target), sorted by id.

    Raises:
        DataError: no such split.
        NotInStore: the report is not in the store.
    """
    if split not in SPLITS:
        raise DataError(f"There is no split {split!r}: the splits are {listed(SPLITS)}.")
    file = pq.ParquetFile(load_tree(store, report_tree, cache) / "accepted.parquet")
    columns = [name for name in ("id", "text", "pair", "label", "target") if name in file.schema_arrow.names]
    return _of_split(file, split, columns)


def load_slices(store: Store, report_tree: str, data: Data, cache: Path) -> dict[str, dict[str, str]]:
    """`{column: {id: value}}` of the test examples, for every column of `data.slices`. Raises `NotInStore`."""
    if not data.slices:
        return {}
    file = pq.ParquetFile(load_tree(store, report_tree, cache) / "accepted.parquet")
    test = _of_split(file, "test", ["id", *map(slice_column, data.slices)])
    return {name: dict(zip(test["id"], test[slice_column(name)], strict=True)) for name in data.slices}


def rows_digest(rows: pd.DataFrame) -> str:
    """The SHA-256 of examples: one line of canonical JSON for each, in their order; see `digest_rows`."""
    digest = hashlib.sha256()
    digest_rows(digest, rows)
    return digest.hexdigest()


def _of_split(file: pq.ParquetFile, split: str, columns: list[str]) -> pd.DataFrame:
    """These columns of one split's rows, read batch by batch."""
    found = [
        batch.filter(pc.equal(batch["split"], split)).select(columns).to_pandas()
        for batch in file.iter_batches(columns=[*columns, "split"], use_threads=False)
    ]
    return pd.concat(found, ignore_index=True)


def _learnable(counts: Counts, quarantined: int, data: Data) -> None:
    """Raises `DataError` where there is nothing to learn from, or nothing to judge it by."""
    faults = f" {quarantined} rows were quarantined: {_most_frequent(counts.reasons)}." if counts.reasons else ""
    faults += _strange_labels(counts, data)
    if counts.read == 0:
        raise DataError(
            f"The data hold no rows (data.path = {data.path!r}). A file needs at least one row below its header."
        )
    if counts.accepted == 0:
        raise DataError(
            f"No row of {data.path!r} keeps the contract, so there is nothing to learn from.{faults} Mend the data, or "
            "what [data] says of them."
        )
    sizes = {side: counts.split(side) for side in SPLITS}
    if empty := [side for side, size in sizes.items() if size == 0]:
        raise DataError(
            f"No rows are left for {listed(empty)} (per split: {sizes}; {counts.leaks} dropped as leaks).{faults} "
            "Bring more rows, or change data.validation_fraction and data.test_fraction."
        )
    trained = {label for side, label in counts.labels if side == "train"}
    if len(trained) < 2 and data.target is None:
        raise DataError(
            f"The training split has rows of one label alone, {listed(trained)}; learning needs two of "
            f"{listed(data.labels)}.{faults} Bring rows of the other labels."
        )


def _sliceable(counts: Counts, data: Data) -> None:
    """Raises `DataError` where a column has so many values that no slice of it could be judged."""
    for name in data.slices:
        if (values := len(counts.slices[name])) > MOST_VALUES:
            raise DataError(
                f"The column {name!r} of data.slices has {values:,} different values, and at most {MOST_VALUES} can be "
                "told apart. Name a column that groups the examples."
            )


def _quarantine_problems(counts: Counts, quarantined: int, data: Data) -> Iterable[str]:
    """The sentence on too many quarantined rows, where there are too many."""
    share = quarantined / counts.read
    if share > data.checks.max_quarantined:
        yield (
            f"{quarantined} of {counts.read} rows ({share:.1%}) were quarantined, more than the "
            f"{data.checks.max_quarantined:.1%} of data.checks.max_quarantined: {_most_frequent(counts.reasons)}."
            f"{_strange_labels(counts, data)}"
        )


def _expectation_problems(results: list[dict[str, Any]]) -> Iterable[str]:
    """One sentence for every expectation that failed."""
    for result in results:
        if not result["success"]:
            where = f" ({result['column']})" if result["column"] else ""
            observed = json.dumps(result["observed"], ensure_ascii=False)
            yield f"Expected {result['description']}{where}, found {observed}."


def _near(counts: Counts, data: Data) -> dict[str, int]:
    """What resembles another text, where that was asked for."""
    if data.checks.near_duplicates is None:
        return {}
    return {"near_leaks_dropped": counts.near_leaks, "near_duplicates": counts.near}


def _most_frequent(reasons: Counter[str]) -> str:
    """The most frequent kinds of fault with their counts, for a sentence."""
    named = reasons.most_common(REPORTED)
    more = f", and {len(reasons) - REPORTED} other kinds" if len(reasons) > REPORTED else ""
    return ", ".join(f"{kind} ({count})" for kind, count in named) + more


def _strange_labels(counts: Counts, data: Data) -> str:
    """A sentence on labels that were renamed, misspelt or are new; nothing where the data have none."""
    strange = counts.strange.most_common()
    if not strange:
        return ""
    named = ", ".join(f"{label!r} ({count})" for label, count in strange[:REPORTED])
    more = f" and {len(strange) - REPORTED} others" if len(strange) > REPORTED else ""
    return (
        f" Labels in the data that the recipe does not know: {named}{more}; it knows {listed(data.labels)}. Name them "
        "so in the data, or change data.labels."
    )
