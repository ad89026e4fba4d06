"""A source file as rows, chunk by chunk: what can be read as a table, and the rows that cannot, each with its reason.

Values stay what the file says: the text `NA` is text, an integer label stays an integer, an empty CSV field is an empty
string. CSV and TSV follow RFC 4180: a field that starts with a double quote ends with one. Whatever a file weighs, one
chunk of it is in memory.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.errors import DataError, listed

CHUNK_ROWS = 16_384
CHUNK_CHARS = 8 * 1024 * 1024  # of CSV or JSON lines; of Parquet, bytes before they were compressed


@dataclass(frozen=True)
class Broken:
    """A row that is no row: its number, its raw text, what kind of fault it has, and the fault in words."""

    row: int
    raw: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """A piece of a file's table (every column `object`, the index is the row in the file, from 0), its broken rows."""

    frame: pd.DataFrame
    broken: tuple[Broken, ...] = ()


def read_rows(path: Path, name: str, encoding: str) -> Iterator[Rows]:
    """A source file in chunks, each with all its columns; an empty file is one empty chunk.

    A chunk has at most `CHUNK_ROWS` rows, and not many more than `CHUNK_CHARS` characters. `name` is what error
    messages call the file.

    Raises:
        DataError: the bytes are not in `encoding`, a quote is never closed, or the file is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        chunks = _read_parquet(path, name)
    elif suffix in (".jsonl", ".ndjson"):
        chunks = _read_json_lines(path, name, encoding)
    else:
        chunks = _read_csv(path, name, encoding, "\t" if suffix == ".tsv" else ",")
    for rows in chunks:
        if twice := {str(column) for column in rows.frame.columns[rows.frame.columns.duplicated()]}:
            raise DataError(f"Two columns of {name!r} have the same name: {listed(twice)}. Rename one of them.")
        yield rows


def _read_parquet(path: Path, name: str) -> Iterator[Rows]:
    """Batches of rows; one batch is decoded at a time, however large the file's row groups are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1024 * 1024)
        about = file.metadata
        weight = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        most = max(1, min(CHUNK_ROWS, CHUNK_CHARS * about.num_rows // max(weight, 1)))
        start = 0
        for batch in file.iter_batches(batch_size=most, use_threads=False):
            yield Rows(_frame(batch, file.schema_arrow.names, start))
            start += len(batch)
        if start == 0:
            yield Rows(_frame(None, file.schema_arrow.names, 0))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Cannot read {name!r} as Parquet: {error}. The file is damaged or in another format."
        ) from error


def _frame(batch: Any, names: list[str], start: int) -> pd.DataFrame:
    """A record batch as a frame of Python values, numbered from `start`."""
    values = [column.to_pylist() for column in batch.columns] if batch is not None else [[] for _ in names]
    index = range(start, start + len(values[0])) if values else range(0)
    columns = [pd.Series(column, index, dtype=object) for column in values]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    return frame.set_axis(names, axis=1)


def _lines(path: Path, name: str, encoding: str, newline: str) -> Iterator[str]:
    """The lines of a text file with their ends, without a byte order mark."""
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            for number, line in enumerate(file):
                yield line.removeprefix("\ufeff") if number == 0 else line
    except LookupError as error:
        raise DataError(f"Unknown encoding {encoding!r} in [data]: {error}. Usual ones: 'utf-8', 'latin-1'.") from error
    except UnicodeDecodeError as error:
        raise DataError(_where_undecodable(path, name, encoding)) from error


def _where_undecodable(path: Path, name: str, encoding: str) -> str:
    """Which byte of the file cannot be decoded, in words: decoded again, for the position of the first fault."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    with path.open("rb") as file:
        while block := file.read(CHUNK_CHARS):
            pending = decoder.getstate()[0]
            try:
                decoder.decode(block, final=len(block) < CHUNK_CHARS)
            except UnicodeDecodeError as error:
                known = error.object[: error.start]
                line += known.count(b"\n") - pending.count(b"\n")
                return (
                    f"{name!r} is not {encoding}: line {line} holds the byte "
                    f"{error.object[error.start : error.start + 1]!r} at offset {offset - len(pending) + error.start}. "
                    f'Name the file\'s encoding in [data], such as `encoding = "latin-1"`, or convert the file.'
                )
            offset += len(block)
            line += block.count(b"\n")
    return f"{name!r} is not {encoding}: its last character is cut off. Deliver the whole file."


def _chunked(
    records: Iterator[tuple[int, Any, Broken | None, int]], frame: Callable[[dict[int, Any]], pd.DataFrame]
) -> Iterator[Rows]:
    """Records `(row, value, fault or None, characters)` as chunks, at least one; `frame` makes a table of values."""
    good: dict[int, Any] = {}
    broken: list[Broken] = []
    chars = chunks = 0
    for row, value, fault, weight in records:
        if fault is None:
            good[row] = value
        else:
            broken.append(fault)
        chars += weight
        if len(good) + len(broken) == CHUNK_ROWS or chars >= CHUNK_CHARS:
            yield Rows(frame(good), tuple(broken))
            good, broken, chars, chunks = {}, [], 0, chunks + 1
    if good or broken or not chunks:
        yield Rows(frame(good), tuple(broken))


def _read_json_lines(path: Path, name: str, encoding: str) -> Iterator[Rows]:
    """One JSON object a line; blank lines are no rows, but they count in the numbering.

    The columns are the keys of all objects, so the file is gone through twice.
    """
    columns: dict[str, None] = {}
    for _, value, fault, _ in _json_records(_lines(path, name, encoding, "\n")):
        if fault is None:
            columns.update(dict.fromkeys(value))

    def frame(good: dict[int, Any]) -> pd.DataFrame:
        table = {column: pd.Series([value.get(column) for value in good.values()], dtype=object) for column in columns}
        return pd.DataFrame(table, columns=list(columns), dtype=object).set_axis(list(good), axis=0)

    yield from _chunked(_json_records(_lines(path, name, encoding, "\n")), frame)


def _json_records(lines: Iterator[str]) -> Iterator[tuple[int, Any, Broken | None, int]]:
    """Each line that is not blank as `(row, object, fault or None, characters)`."""
    for row, ended in enumerate(lines):
        line, value, fault = ended.removesuffix("\n"), None, None
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            fault = Broken(row, line, "not valid Unicode", "an escape gives half of a surrogate pair")
        except (ValueError, RecursionError) as error:
            fault = Broken(row, line, "not valid JSON", f"not valid JSON: {error}")
        else:
            if not isinstance(value, dict):
                fault = Broken(row, line, "not a JSON object", f"a JSON {type(value).__name__}, not an object")
        yield row, value, fault, len(line)


def _read_csv(path: Path, name: str, encoding: str, delimiter: str) -> Iterator[Rows]:
    """A header, then one row after the other; blank lines are no rows."""
    records = _csv_records(_lines(path, name, encoding, ""), name, delimiter)
    header, fault, raw = next(records, ([], None, ""))
    if fault is not None:
        raise DataError(f"The first line of {name!r} is no header: {fault} ({raw!r:.120}).")
    names = pd.Index(header, dtype=object)

    def numbered() -> Iterator[tuple[int, Any, Broken | None, int]]:
        for row, (fields, fault, raw) in enumerate(records):
            broken = None
            if fault is not None:
                broken = Broken(row, raw, "broken quoting", f"broken quoting: {fault}")
            elif len(fields) != len(header):
                reason = f"{len(fields)} fields where the header has {len(header)}"
                broken = Broken(row, raw, "wrong number of fields", reason)
            yield row, fields, broken, len(raw)

    yield from _chunked(
        numbered(), lambda good: pd.DataFrame(list(good.values()), index=list(good), columns=names, dtype=object)
    )


def _csv_records(lines: Iterator[str], name: str, delimiter: str) -> Iterator[tuple[list[str], str | None, str]]:
    """Each record as `(fields, fault or None, raw text)`, blank lines left out."""
    taken: list[str] = []  # the lines of the record that is being read

    def remembered() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(remembered(), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num
        fields, fault = [], None
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "expected after" not in str(error):  # everything up to the end, or up to the limit of a field, is in it
                raise DataError(
                    f"A double quote opened in line {start + 1} of {name!r} is never closed ({error}). "
                    'Close it, or write a quote inside a quoted field twice: "".'
                ) from error
            fault = str(error)
        if fields or fault is not None:
            yield fields, fault, "".join(taken).rstrip("\r\n")
