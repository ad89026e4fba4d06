from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.data.snapshot import snapshot, source_digest
from pipelines.digests import digest_folder
from pipelines.errors import DataError
from pipelines.store.trees import load_tree

ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


def test_a_snapshot_holds_the_files_byte_for_byte(store, write, tmp_path, make_data):
    paths = [write("x.csv", ROWS), write("y.jsonl", ROWS)]
    kept = snapshot(store, make_data("folder"), tmp_path)
    loaded = load_tree(store, kept.digest, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in loaded.iterdir()} == {p.name: p.read_bytes() for p in paths}
    assert set(kept.files) == {"x.csv", "y.jsonl"}
    assert kept.size_bytes == sum(path.stat().st_size for path in paths)
    assert kept.digest == digest_folder(tmp_path / "folder")


def test_the_digest_is_known_without_a_store(store, write, tmp_path, make_data):
    for name in ("1/x.csv", "2/x.csv", "y.tsv"):
        write(name, ROWS)
    data = make_data("folder")
    before = source_digest(data, tmp_path)
    assert before == snapshot(store, data, tmp_path).digest
    write("y.tsv", ROWS[:1])
    assert source_digest(data, tmp_path) != before


def test_a_set_on_the_hub_has_no_digest_before_it_is_fetched(tmp_path, make_data):
    assert source_digest(make_data("hf://org/set@0123abc"), tmp_path) is None


def test_later_changes_to_the_source_do_not_reach_the_snapshot(store, write, tmp_path, make_data):
    path = write("x.csv", ROWS)
    old = path.read_bytes()
    kept = snapshot(store, make_data("folder/x.csv"), tmp_path)
    path.write_bytes(b"gone")
    assert (load_tree(store, kept.digest, tmp_path / "cache") / "x.csv").read_bytes() == old


def test_an_unreadable_file_is_named(store, write, tmp_path, make_data, monkeypatch):
    path = write("x.csv", ROWS)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pipelines.data.snapshot.digest_file", refuse)
    monkeypatch.setattr("pipelines.data.snapshot.shutil.copyfile", refuse)
    for read in (
        lambda: source_digest(make_data(str(path)), tmp_path),
        lambda: snapshot(store, make_data(str(path)), tmp_path),
    ):
        with pytest.raises(DataError, match=rf"Cannot read '{path}': Permission denied"):
            read()


def test_deciding_that_nothing_changed_imports_nothing_heavy():
    heavy = "{'pandas', 'numpy', 'pyarrow', 'torch', 'datasets', 'boto3', 'pandera', 'great_expectations'}"
    code = f"import sys, pipelines.data.snapshot; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
