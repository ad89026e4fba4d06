"""Tables written as Parquet piece by piece, with bytes that are equal for equal rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROW_GROUP_ROWS = 1024 * 1024  # what pyarrow writes by itself: files of one piece keep the bytes they always had
ROW_GROUP_BYTES = 128 * 1024 * 1024
SPOOLED_BYTES = 16 * 1024 * 1024


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet whose bytes are equal for equal rows: no pandas metadata, no index.

    A column of one type keeps it; a column of many (what a quarantine is full of) is written as text, each value that
    is not a string as JSON.
    """
    columns = {str(column): _arrow(list(rows[column])) for column in rows.columns}
    pq.write_table(pa.table(columns), path, compression="zstd")


def table_of(rows: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """The columns of the schema, in its order, as a table."""
    return pa.table({field.name: pa.array(list(rows[field.name]), field.type) for field in schema}, schema=schema)


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A table as Python values: every column `object`, None where there is nothing."""
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names})


class Writer:
    """A Parquet file that grows. Its bytes depend on its rows alone, not on the pieces they come in.

    A row group ends after `ROW_GROUP_ROWS` rows, or before it would hold more than `ROW_GROUP_BYTES`.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._held = [schema.empty_table()]
        self._rows = self._bytes = self._groups = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and (self._rows or not self._groups):
            self._flush()
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows of the schema."""
        while len(rows):
            ends = self._bytes + np.cumsum(_weights(rows))
            fit = int(np.searchsorted(ends, ROW_GROUP_BYTES, "right"))
            fit = min(max(fit, 0 if self._rows else 1), ROW_GROUP_ROWS - self._rows)
            if fit == 0:
                self._flush()
                continue
            self._held.append(rows.slice(0, fit))
            self._rows, self._bytes, rows = self._rows + fit, int(ends[fit - 1]), rows.slice(fit)

    def _flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._held).combine_chunks(), ROW_GROUP_ROWS)
        self._held = self._held[:1]
        self._rows, self._bytes, self._groups = 0, 0, self._groups + 1


class Spool:
    """Tables whose columns and types may differ, kept on disk until all are known, then written as one."""

    def __init__(self, folder: Path, join: Callable[[list[pd.DataFrame]], pd.DataFrame]) -> None:
        self.rows = 0
        self._folder, self._join = folder, join
        self._held: list[pd.DataFrame] = []
        self._bytes = 0
        self._parts: list[Path] = []

    def add(self, rows: pd.DataFrame) -> None:
        """Keep these rows, behind those that were added earlier."""
        if len(rows):
            self._held.append(rows)
            self.rows += len(rows)
            self._bytes += int(rows.memory_usage(deep=True).sum())
        if self._bytes > SPOOLED_BYTES:
            self._spill()

    def write(self, path: Path) -> None:
        """Write all rows as Parquet, as `write_rows` does it."""
        if not self._parts:
            write_rows(self._join(self._held), path)
            return
        self._spill()
        types: dict[str, set[pa.DataType]] = {}
        for part in self._parts:
            for field in pa.ipc.open_file(part).schema:
                types.setdefault(field.name, set()).add(field.type)
        names = list(self._join([pd.DataFrame(columns=list(types), dtype=object)]).columns)
        schema = pa.schema([(name, _common(types[name] - {pa.null()})) for name in names])
        with Writer(path, schema) as writer:
            for part in self._parts:
                table = pa.ipc.open_file(part).read_all()
                columns = [_cast(table, field) for field in schema]
                writer.write(pa.table(columns, schema=schema))

    def _spill(self) -> None:
        rows = self._join(self._held)
        columns = {str(name): _arrow(list(rows[name]), nothing=pa.null()) for name in rows.columns}
        self._parts.append(self._folder / f"part-{len(self._parts)}.arrow")
        table = pa.table(columns)
        with pa.OSFile(str(self._parts[-1]), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        self._held, self._bytes = [], 0


def _weights(rows: pa.Table) -> NDArray[np.int64]:
    """What each row weighs: the bytes of its texts, and eight for everything else."""
    total = np.zeros(len(rows), np.int64)
    for column in rows.columns:
        if pa.types.is_string(column.type):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        else:
            total += 8
    return total


def _common(types: set[pa.DataType]) -> pa.DataType:
    """The type of a column that has these in its parts."""
    if types == {pa.int64(), pa.float64()}:
        return pa.float64()
    return types.pop() if len(types) == 1 else pa.string()


def _cast(table: pa.Table, field: pa.Field) -> Any:
    """A column of a part as the whole table has it."""
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    if field.type == pa.string() and column.type != pa.string():
        return pa.array(_as_text(column.to_pylist()), pa.string())
    return column.cast(field.type)


def _arrow(values: list[Any], nothing: pa.DataType = pa.string()) -> Any:  # noqa: B008  (a type is immutable)
    """One column for Parquet, with nulls where pandas has NaN, of type `nothing` where it has nothing else."""
    values = [None if isinstance(value, float) and value != value else value for value in values]
    if all(value is None for value in values):
        return pa.array(values, nothing)
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(_as_text(values), pa.string())
    return column if column.type != pa.struct([]) else pa.array([json.dumps(value) for value in values], pa.string())


def _as_text(values: Sequence[Any]) -> list[str | None]:
    """Strings as they are, everything else as JSON."""
    return [value if isinstance(value, str | None) else json.dumps(value, default=str) for value in values]
