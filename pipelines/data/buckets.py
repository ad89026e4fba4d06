"""Rows sorted into buckets on disk: what belongs together comes together, without all rows being in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

GROUP_ROWS = 65_536
GROUP_BYTES = 16 * 1024 * 1024


class Buckets:
    """A file of rows, each in one of `count` buckets; rows of a bucket keep the order in which they were put.

    The file holds record batches one after the other; where those of a bucket stand is all that stays in memory.
    """

    def __init__(self, path: Path, schema: pa.Schema, count: int) -> None:
        self.schema = schema
        self._file = path.open("w+b")
        self._spans: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._rows = np.zeros(count, np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def put(self, rows: pa.Table, places: NDArray[np.int64]) -> None:
        """Put the rows (of the schema) into the buckets `places` [rows]."""
        if not len(rows):
            return
        order = np.argsort(places, kind="stable")
        (batch,) = rows.take(pa.array(order)).combine_chunks().to_batches()
        self._file.seek(0, io.SEEK_END)
        taken, starts = np.unique(places[order], return_index=True)
        for place, start, end in zip(taken, starts, [*starts[1:], len(order)], strict=True):
            written = batch.slice(start, end - start).serialize()
            self._spans[place].append((self._file.tell(), written.size))
            self._rows[place] += end - start
            self._file.write(written)

    def groups(self) -> Iterator[pa.Table]:
        """All rows, bucket after bucket; a group is as many whole buckets as fit the bounds, and at least one."""
        held: list[tuple[int, int]] = []
        rows = weight = 0
        for count, spans in zip(self._rows, self._spans, strict=True):
            more = sum(size for _, size in spans)
            if held and (rows + count > GROUP_ROWS or weight + more > GROUP_BYTES):
                yield self._read(held)
                held, rows, weight = [], 0, 0
            held, rows, weight = [*held, *spans], rows + int(count), weight + more
        if held:
            yield self._read(held)

    def _read(self, spans: list[tuple[int, int]]) -> pa.Table:
        batches: list[Any] = []
        for start, size in spans:
            self._file.seek(start)
            batches.append(pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self.schema))
        return pa.Table.from_batches(batches, self.schema)
