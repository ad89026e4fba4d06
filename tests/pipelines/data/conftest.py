"""A store, and source files made in a moment."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipe import Checks, Data
from pipelines.store.local import LocalStore

LENIENT = Checks(min_rows=1, min_rows_per_label=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Sequence[dict[str, Any]]], Path]:
    """Writes rows to `folder/NAME` in the format of the name's suffix."""

    def write(name: str, rows: Sequence[dict[str, Any]]) -> Path:
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        elif path.suffix in (".jsonl", ".ndjson"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def make_data() -> Callable[..., Data]:
    """A `[data]` section with labels a and b and checks that let small sets pass."""

    def make_data(path: str = "x.jsonl", **changes: Any) -> Data:
        return Data(**{"path": path, "labels": ("a", "b"), "checks": LENIENT, **changes})

    return make_data
