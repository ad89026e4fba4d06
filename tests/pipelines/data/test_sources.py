from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.data.reading import read_rows
from pipelines.data.snapshot import snapshot, source_digest
from pipelines.data.sources import fetched, list_files, marks, write_hub_splits
from pipelines.errors import DataError
from pipelines.store.s3 import S3Store
from pipelines.store.store import Item

ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


def names(data, folder):
    return list(list_files(data, folder))


@pytest.fixture
def folder(tmp_path, write):
    for name in ("a.csv", "b.jsonl", "deep/c.parquet"):
        write(name, ROWS)
    for name in ("README.md", ".hidden.csv", "_SUCCESS", "_tmp/d.csv"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not data")
    return tmp_path / "folder"


def test_a_file_a_glob_and_a_folder(folder, make_data):
    assert names(make_data("a.csv"), folder) == ["a.csv"]
    assert names(make_data("*.[cj]*"), folder) == ["a.csv", "b.jsonl"]
    assert names(make_data("**/*.parquet"), folder) == ["c.parquet"]
    assert names(make_data("."), folder) == ["a.csv", "b.jsonl", "c.parquet"]
    assert names(make_data(f"{folder}/*.csv"), Path("/")) == ["a.csv"]
    assert names(make_data("../folder/*.csv"), folder) == ["a.csv"]


def test_a_name_with_a_star_is_a_file_where_it_exists(write, tmp_path, make_data):
    write("x*.csv", ROWS)
    write("xy.csv", ROWS)
    assert names(make_data("x*.csv"), tmp_path / "folder") == ["x*.csv"]


def test_equal_basenames_are_told_apart_by_their_folders(write, tmp_path, make_data):
    for name in ("2024/x.csv", "2025/x.csv", "2025/y.csv"):
        write(name, ROWS)
    files = list_files(make_data("folder"), tmp_path)
    assert list(files) == ["2024/x.csv", "2025/x.csv", "2025/y.csv"]
    assert all(path.as_posix().endswith(name) for name, path in files.items())


def test_a_missing_file_names_the_absolute_path_and_its_neighbours(folder, make_data):
    with pytest.raises(DataError) as error:
        list_files(make_data("deep/../c.csv"), folder)
    assert str(folder.resolve() / "c.csv") in str(error.value)
    assert "'a.csv', 'b.jsonl', 'deep'" in str(error.value)


def test_a_missing_folder_shows_the_nearest_one_and_counts_what_it_does_not_show(tmp_path, make_data):
    for number in range(20):
        (tmp_path / f"f{number:02}").touch()
    with pytest.raises(DataError, match=r"'f00'.*'f11' and 8 more"):
        list_files(make_data("no/such/*.csv"), tmp_path)


def test_an_unknown_format_is_refused_with_the_known_ones(folder, make_data):
    (folder / "e.xlsx").touch()
    for path in ("e.xlsx", "*", "."):
        with pytest.raises(DataError, match=r"'e.xlsx'.*'.csv', '.jsonl', '.ndjson', '.parquet', '.tsv'"):
            list_files(make_data(path), folder)


def test_objects_in_a_bucket(tmp_path, store, make_data, monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "PROMPTMINT_S3_ENDPOINT": f"http://{host}:{port}",
        "PROMPTMINT_S3_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        bucket = S3Store("s3://arrivals/day")
        bucket._client.create_bucket(Bucket="arrivals")
        for key in ("1/x.csv", "2/x.csv", "y.csv", "README.md"):
            bucket.write(key, b"text,label\n" + key.encode() + b",a\n")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        for path, found in (
            ("s3://arrivals/day/1", ["x.csv"]),
            ("s3://arrivals/day/y.csv", ["y.csv"]),
            ("s3://arrivals/day/*.csv", ["y.csv"]),
            ("s3://arrivals/day/", ["1/x.csv", "2/x.csv", "y.csv"]),
        ):
            with fetched(make_data(path), tmp_path) as files:
                assert list(files) == found
                assert (
                    files[found[-1]].read_bytes() == b"text,label\n" + (b"1/x" if "/1" in path else b"y") + b".csv,a\n"
                )
        kept = snapshot(store, make_data(path), tmp_path)
        assert list(kept.files) == found
        assert source_digest(make_data(path), tmp_path) == kept.digest
        before = marks(make_data(path), tmp_path)
        assert list(before) == found
        bucket.write("y.csv", b"text,label\nmore,a\n")
        after = marks(make_data(path), tmp_path)
        assert [name for name in found if before[name] != after[name]] == ["y.csv"]
        with pytest.raises(DataError, match="no object there"):
            source_digest(make_data("s3://arrivals/night"), tmp_path)
        bucket.write("e.xlsx", b"")
        with pytest.raises(DataError, match=r"'e.xlsx'"):
            source_digest(make_data("s3://arrivals/day"), tmp_path)
        assert not list(tmp_path.glob("promptmint-*")), "downloads were left behind"
    finally:
        server.stop()


@pytest.mark.parametrize("key", ["../x.csv", "a/../../x.csv", "/x.csv"])
def test_an_object_does_not_leave_the_folder_it_is_fetched_into(key, tmp_path, make_data, monkeypatch):
    class Bucket:
        def items(self, prefix):
            return [Item(prefix + key, 1, datetime.now(UTC))]

        def download(self, *_):
            pytest.fail("fetched")

    monkeypatch.setattr("pipelines.store.opening.open_store", lambda uri: Bucket())
    with pytest.raises(DataError, match=f"'{key}' under 's3://arrivals' would leave the folder"):
        source_digest(make_data("s3://arrivals"), tmp_path)


@pytest.mark.parametrize("path", ["hf://set@abc", "hf://org/set", "hf://org/set@abc?name=x", "hf://org/set@abc;x"])
def test_a_hub_set_needs_a_name_and_a_revision(path, tmp_path, make_data):
    with pytest.raises(DataError, match="hf://ORG/SET@REVISION"), fetched(make_data(path), tmp_path):
        pass


def test_a_hub_that_cannot_be_reached_may_be_tried_again(tmp_path):
    code = """
from pathlib import Path
from pipelines.data.sources import fetched
from pipelines.errors import TransientError
from pipelines.recipe import Data
try:
    with fetched(Data(path="hf://org/set@0123abc?config=en", labels=("a", "b")), Path()):
        pass
except TransientError as error:
    print(error)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "The hub cannot be reached for 'hf://org/set@0123abc?config=en'" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stdout


def test_hub_splits_become_files_with_label_names_and_a_split_column(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    train = Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features)
    test = Dataset.from_dict({"text": ["z"], "label": [-1]}, features)
    files = write_hub_splits({"train": train.select([1, 0]), "test": test}, tmp_path)
    assert list(files) == ["test.parquet", "train.parquet"]
    rows = next(read_rows(files["train.parquet"], "train.parquet", "utf-8")).frame
    assert rows.to_dict("list") == {"text": ["y", "x"], "label": ["neg", "pos"], "split": ["train", "train"]}
    assert next(read_rows(files["test.parquet"], "test.parquet", "utf-8")).frame["label"].to_list() == [None]
    before = {name: path.read_bytes() for name, path in files.items()}
    write_hub_splits({"train": train.select([1, 0]), "test": test}, tmp_path)
    assert before == {name: path.read_bytes() for name, path in files.items()}


def test_a_split_column_of_a_hub_set_stays(tmp_path):
    from datasets import Dataset

    files = write_hub_splits({"all": Dataset.from_dict({"text": ["x"], "split": ["dev"]})}, tmp_path)
    assert next(read_rows(files["all.parquet"], "all.parquet", "utf-8")).frame["split"].to_list() == ["dev"]
