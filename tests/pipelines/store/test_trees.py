"""Files and folders by their digests: what goes in comes out, and a changed byte is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.digests import canonical_json, digest_bytes, digest_folder
from pipelines.errors import CorruptObject, NotInStore, StoreError, TransientError
from pipelines.store.local import LocalStore
from pipelines.store.store import Store
from pipelines.store.trees import (
    load_bytes,
    load_tree,
    object_key,
    save_bytes,
    save_file,
    save_tree,
    tree_files,
    tree_key,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nested, empty, equal and oddly named files."""
    folder = tmp_path / "made"
    files = {
        "a.json": b"{}",
        "sub/deep/b.bin": os.urandom(10_000),
        "sub/empty": b"",
        "ü ' ..x": b"odd",
        "copy.json": b"{}",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cached(cache: Path) -> list[str]:
    """What lies in a cache beside the locks."""
    return [path.name for path in cache.iterdir() if path.name != ".locks"]


def test_a_folder_comes_back_as_it_was(store: Store, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(store, folder)
    assert digest == digest_folder(folder) == digest_bytes(store.read(tree_key(digest)))
    loaded = load_tree(store, digest, tmp_path / "cache")
    assert loaded == tmp_path / "cache" / digest
    assert contents(loaded) == contents(folder)
    assert len(store.keys("objects/")) == 4  # two of the five files are equal
    assert cached(tmp_path / "cache") == [digest]


def test_a_tree_is_served_from_the_cache(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(file_store, folder)
    first = load_tree(file_store, digest, tmp_path / "cache")
    for key in file_store.keys(""):
        file_store.delete(key)
    assert load_tree(file_store, digest, tmp_path / "cache") == first
    with pytest.raises(NotInStore):
        load_tree(file_store, digest, tmp_path / "another cache")


def test_what_is_in_the_store_is_not_written_again(file_store: LocalStore, folder: Path) -> None:
    digest = save_tree(file_store, folder)
    before = {key: (file_store.folder / key).stat().st_ino for key in file_store.keys("")}
    assert save_tree(file_store, folder) == digest
    assert save_bytes(file_store, b"{}") == save_file(file_store, folder / "a.json")
    assert {key: (file_store.folder / key).stat().st_ino for key in file_store.keys("")} == before


def test_bytes_come_back_as_they_were(store: Store) -> None:
    digest = save_bytes(store, b"some bytes")
    assert digest == digest_bytes(b"some bytes")
    assert load_bytes(store, digest) == b"some bytes"
    with pytest.raises(NotInStore):
        load_bytes(store, "0" * 64)


def test_a_flipped_byte_in_a_file_is_seen(store: Store, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(store, folder)
    damaged = tree_files(store, digest)["sub/deep/b.bin"]
    flip_a_byte(store, object_key(damaged))
    with pytest.raises(CorruptObject, match=rf"{object_key(damaged)}.*wanted SHA-256 {damaged}, found [0-9a-f]{{64}}"):
        load_tree(store, digest, tmp_path / "cache")
    with pytest.raises(CorruptObject, match=damaged):
        load_bytes(store, damaged)
    assert cached(tmp_path / "cache") == []


def test_a_flipped_byte_in_a_list_is_seen(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    store = file_store
    digest = save_tree(store, folder)
    size = len(store.read(tree_key(digest)))
    for position in (0, size // 2, size - 1):
        flip_a_byte(store, tree_key(digest), position)
        with pytest.raises(CorruptObject, match=rf"wanted SHA-256 {digest}"):
            load_tree(store, digest, tmp_path / "cache")
        flip_a_byte(store, tree_key(digest), position)
    assert contents(load_tree(store, digest, tmp_path / "cache")) == contents(folder)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", ".."])
def test_a_tree_that_reaches_outside_is_refused(file_store: LocalStore, tmp_path: Path, name: str) -> None:
    listing = canonical_json({"files": {"a": save_bytes(file_store, b"x"), name: save_bytes(file_store, b"x")}})
    digest = digest_bytes(listing)
    file_store.write(tree_key(digest), listing)
    with pytest.raises(CorruptObject, match=r"outside its folder: do not use it"):
        load_tree(file_store, digest, tmp_path / "cache" / "deep")
    assert not list(tmp_path.rglob("outside"))


def test_a_missing_file_is_named_and_nothing_is_published(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(file_store, folder)
    missing = object_key(tree_files(file_store, digest)["a.json"])
    file_store.delete(missing)
    with pytest.raises(NotInStore, match=missing):
        load_tree(file_store, digest, tmp_path / "cache")
    assert cached(tmp_path / "cache") == []


def test_the_list_is_written_last(file_store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, uploaded = file_store.upload, []

    def fail_at_the_third(key: str, path: Path) -> None:
        uploaded.append(key)
        if len(uploaded) == 3:
            raise StoreError("full")
        upload(key, path)

    monkeypatch.setattr(file_store, "upload", fail_at_the_third)
    with pytest.raises(StoreError, match="full"):
        save_tree(file_store, folder)
    assert file_store.keys("trees/") == []
    monkeypatch.undo()
    assert (
        json.loads(file_store.read(tree_key(save_tree(file_store, folder))))["files"].keys() == contents(folder).keys()
    )


def test_racing_readers_share_one_folder(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    digest, start = save_tree(file_store, folder), threading.Barrier(8)

    def load(_: int) -> Path:
        start.wait()
        return load_tree(file_store, digest, tmp_path / "cache")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(load, range(8))) == {tmp_path / "cache" / digest}
    assert cached(tmp_path / "cache") == [digest]
    assert contents(tmp_path / "cache" / digest) == contents(folder)


def test_of_several_processes_one_fetches(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    """Four processes, and no file of the store is read twice: reading is slowed down, so that they would overlap."""
    digest = save_tree(file_store, folder)
    code = (
        "import sys, time; from pathlib import Path; from pipelines.store.local import LocalStore\n"
        "from pipelines.store.trees import load_tree\n"
        "class Slow(LocalStore):\n"
        "    def download(self, key, path):\n"
        "        time.sleep(0.2); print(key); super().download(key, path)\n"
        "load_tree(Slow(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", code, str(file_store.folder), digest, str(tmp_path / "cache")]
    racers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    read = [line for racer in racers for line in racer.communicate()[0].splitlines()]
    assert all(racer.returncode == 0 for racer in racers)
    assert len(read) == len(contents(folder))
    assert contents(tmp_path / "cache" / digest) == contents(folder)


def test_a_broken_fetch_goes_on_with_the_next_file(
    file_store: LocalStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, download, fetched = save_tree(file_store, folder), file_store.download, []

    def break_at_the_third(key: str, path: Path) -> None:
        fetched.append(key)
        if len(fetched) == 3:
            raise TransientError("the line is dead")
        download(key, path)

    monkeypatch.setattr(file_store, "download", break_at_the_third)
    with pytest.raises(TransientError):
        load_tree(file_store, digest, tmp_path / "cache")
    assert cached(tmp_path / "cache") == [f".fetching-{digest}"]
    assert load_tree(file_store, digest, tmp_path / "cache") == tmp_path / "cache" / digest
    assert len(fetched) == len(contents(folder)) + 1, "only the one that failed is fetched twice"
    assert cached(tmp_path / "cache") == [digest] and contents(tmp_path / "cache" / digest) == contents(folder)


def test_what_a_broken_fetch_left_is_not_believed(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(file_store, folder)
    spoilt = tmp_path / "cache" / f".fetching-{digest}" / "a.json"
    spoilt.parent.mkdir(parents=True)
    spoilt.write_bytes(b"[]")
    assert contents(load_tree(file_store, digest, tmp_path / "cache")) == contents(folder)


def test_a_cache_that_cannot_be_written_is_named(file_store: LocalStore, folder: Path, tmp_path: Path) -> None:
    digest = save_tree(file_store, folder)
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(StoreError, match=r"Cannot write the cache '.*/cache'.*Set PROMPTMINT_HOME"):
        load_tree(file_store, digest, tmp_path / "cache")


def flip_a_byte(store: Store, key: str, position: int = 0) -> None:
    data = bytearray(store.read(key))
    data[position] ^= 1
    store.write(key, bytes(data))
