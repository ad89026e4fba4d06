from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data.reading import Rows, read_rows
from pipelines.errors import DataError


def read(path, encoding="utf-8"):
    """The whole file as one table."""
    return joined(read_rows(path, path.name, encoding))


def joined(chunks):
    chunks = list(chunks)
    return Rows(
        pd.concat([chunk.frame for chunk in chunks]), tuple(fault for chunk in chunks for fault in chunk.broken)
    )


def read_text(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read(path)


def broken(rows):
    return {fault.row: fault.kind for fault in rows.broken}


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_what_was_written_is_read(write, suffix, rows):
    table = [{"text": text, "label": label} for text, label in rows]
    found = read(write(f"x{suffix}", table))
    assert found.broken == ()
    assert found.frame.to_dict("records") == table
    assert found.frame.index.to_list() == list(range(len(rows)))


def test_numbers_and_nulls_stay_what_they_are(write):
    for name in ("x.parquet", "x.jsonl"):
        frame = read(write(name, [{"text": None, "label": 1}, {"text": "NA", "label": None}])).frame
        assert frame["text"].to_list() == [None, "NA"]
        assert frame["label"].to_list() == [1, None]
        assert type(frame["label"][0]) is int
    assert read(write("x.csv", [{"text": "NA", "label": ""}])).frame.iloc[0].to_list() == ["NA", ""]


def test_every_bad_line_of_json_is_a_broken_row(tmp_path):
    lines = ['{"text": "x"}', '{"text": ', "[1]", "", '{"other": 1}', r'{"text": "\ud800"}', "[" * 100_000, "null"]
    rows = read_text(tmp_path, "x.jsonl", "\n".join(lines) + "\r\n")
    assert rows.frame.index.to_list() == [0, 4]
    assert rows.frame.columns.to_list() == ["text", "other"]
    assert rows.frame["text"].to_list() == ["x", None]
    kinds = {
        1: "not valid JSON",
        2: "not a JSON object",
        5: "not valid Unicode",
        6: "not valid JSON",
        7: "not a JSON object",
    }
    assert broken(rows) == kinds
    assert rows.broken[0].raw == '{"text": '
    assert "not valid JSON: Expecting value" in rows.broken[0].reason


def test_a_unicode_line_separator_does_not_end_a_line(tmp_path):
    rows = read_text(tmp_path, "x.jsonl", json.dumps({"text": "one\u2028two\x85"}, ensure_ascii=False))
    assert rows.frame["text"].to_list() == ["one\u2028two\x85"]


def test_every_bad_row_of_csv_is_a_broken_row(tmp_path):
    rows = read_text(tmp_path, "x.csv", 'text,label\r\nx,a\r\n\r\ny,a,more\r\nz\r\n"q"r,a\r\n"two\r\nlines",b\r\n')
    assert broken(rows) == {1: "wrong number of fields", 2: "wrong number of fields", 3: "broken quoting"}
    assert [fault.raw for fault in rows.broken] == ["y,a,more", "z", '"q"r,a']
    assert rows.broken[0].reason == "3 fields where the header has 2"
    assert rows.frame.index.to_list() == [0, 4]
    assert rows.frame["text"].to_list() == ["x", "two\r\nlines"]


@pytest.mark.parametrize("rest", ["a\n" * 10, "long" * 50_000 + '"\n'])
def test_a_quote_that_never_closes_is_not_a_row(tmp_path, rest):
    with pytest.raises(DataError, match=r"opened in line 3 of 'x.csv' is never closed"):
        read_text(tmp_path, "x.csv", f'text,label\nx,a\n"y,b\n{rest}')


def test_a_header_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"first line of 'x.csv' is no header"):
        read_text(tmp_path, "x.csv", '"te"xt,label\nx,a\n')


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    rows = read_text(tmp_path, name, "")
    assert (len(rows.frame), len(rows.frame.columns), rows.broken) == (0, 0, ())


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    assert read_text(tmp_path, "x.csv", "\ufefftext,label\nx,a\n").frame.columns.to_list() == ["text", "label"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'x.csv' have the same name: 'text'"):
        read_text(tmp_path, "x.csv", "text,text\nx,a\n")


def test_another_encoding_is_located_and_can_be_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("text,label\nfine,a\ncafé,a\n".encode("latin-1"))
    with pytest.raises(DataError) as error:
        read(path)
    for part in ("'x.csv' is not utf-8", "line 3", r"b'\xe9'", "offset 21", 'encoding = "latin-1"'):
        assert part in str(error.value)
    assert read(path, "latin-1").frame["text"].to_list() == ["fine", "café"]


@pytest.mark.parametrize("encoding", ["utf-9", "rot13"])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "x.csv").write_text("text\n")
    with pytest.raises(DataError, match=f"Unknown encoding '{encoding}'"):
        read(tmp_path / "x.csv", encoding)


def test_damaged_parquet_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read 'x.parquet' as Parquet"):
        read_text(tmp_path, "x.parquet", "PAR1 no")


def test_parquet_without_columns_is_empty(write):
    assert read(write("x.parquet", [])).frame.empty
