"""A source file as rows: what can be read as a table, and the rows that cannot, each with its reason.

Values stay what the file says: the text `NA` is text, an integer label stays an integer, an empty CSV field is an empty
string. CSV and TSV follow RFC 4180: a field that starts with a double quote ends with one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.errors import DataError, listed


@dataclass(frozen=True)
class Broken:
    """A row that is no row: its number, its raw text, what kind of fault it has, and the fault in words."""

    row: int
    raw: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """A file's table (every column `object`, the index is the row in the file, from 0) and its broken rows."""

    frame: pd.DataFrame
    broken: tuple[Broken, ...] = ()


def read_rows(path: Path, name: str, encoding: str) -> Rows:
    """Everything in a source file; `name` is what error messages call it.

    Raises:
        DataError: the bytes are not in `encoding`, a quote is never closed, or the file is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows = Rows(_read_parquet(path, name))
    elif suffix in (".jsonl", ".ndjson"):
        rows = _read_json_lines(_decoded(path, name, encoding))
    else:
        rows = _read_csv(_decoded(path, name, encoding), name, "\t" if suffix == ".tsv" else ",")
    if twice := {str(column) for column in rows.frame.columns[rows.frame.columns.duplicated()]}:
        raise DataError(f"Two columns of {name!r} have the same name: {listed(twice)}. Rename one of them.")
    return rows


def _read_parquet(path: Path, name: str) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"Cannot read {name!r} as Parquet: {error}. The file is damaged or in another format."
        ) from error
    columns = [pd.Series(column.to_pylist(), dtype=object) for column in table.columns]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    return frame.set_axis(table.column_names, axis=1)


def _decoded(path: Path, name: str, encoding: str) -> str:
    """The file's text without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise DataError(f"Unknown encoding {encoding!r} in [data]: {error}. Usual ones: 'utf-8', 'latin-1'.") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name!r} is not {encoding}: line {line} holds the byte {data[error.start : error.start + 1]!r} at offset "
            f'{error.start}. Name the file\'s encoding in [data], such as `encoding = "latin-1"`, or convert the file.'
        ) from error


def _read_json_lines(text: str) -> Rows:
    """One JSON object a line; blank lines are no rows, but they count in the numbering."""
    good: dict[int, dict[str, Any]] = {}
    broken = []
    for row, line in enumerate(text.split("\n")):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            broken.append(Broken(row, line, "not valid Unicode", "an escape gives half of a surrogate pair"))
        except (ValueError, RecursionError) as error:
            broken.append(Broken(row, line, "not valid JSON", f"not valid JSON: {error}"))
        else:
            if isinstance(value, dict):
                good[row] = value
            else:
                reason = f"a JSON {type(value).__name__}, not an object"
                broken.append(Broken(row, line, "not a JSON object", reason))
    columns = list(dict.fromkeys(key for value in good.values() for key in value))
    table = {column: pd.Series([value.get(column) for value in good.values()], dtype=object) for column in columns}
    return Rows(pd.DataFrame(table, columns=columns, dtype=object).set_axis(list(good), axis=0), tuple(broken))


def _read_csv(text: str, name: str, delimiter: str) -> Rows:
    """A header, then one row after the other; blank lines are no rows."""
    lines = list(io.StringIO(text, newline=""))
    records = _csv_records(lines, name, delimiter)
    header, fault, raw = next(records, ([], None, ""))
    if fault is not None:
        raise DataError(f"The first line of {name!r} is no header: {fault} ({raw!r:.120}).")
    good: dict[int, list[str]] = {}
    broken = []
    for row, (fields, fault, raw) in enumerate(records):
        if fault is not None:
            broken.append(Broken(row, raw, "broken quoting", f"broken quoting: {fault}"))
        elif len(fields) != len(header):
            reason = f"{len(fields)} fields where the header has {len(header)}"
            broken.append(Broken(row, raw, "wrong number of fields", reason))
        else:
            good[row] = fields
    frame = pd.DataFrame(list(good.values()), index=list(good), columns=pd.Index(header, dtype=object), dtype=object)
    return Rows(frame, tuple(broken))


def _csv_records(lines: list[str], name: str, delimiter: str) -> Iterator[tuple[list[str], str | None, str]]:
    """Each record as `(fields, fault or None, raw text)`, blank lines left out."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num
        fields, fault = [], None
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
            yield fields, fault, "".join(lines[start : reader.line_num]).rstrip("\r\n")
