"""What every store must do, asked of a folder and of two S3 servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.digests import digest_file
from pipelines.errors import AlreadyInStore, NotInStore, StoreError
from pipelines.store.local import LocalStore
from pipelines.store.opening import open_store
from pipelines.store.s3 import S3Store
from pipelines.store.store import Store

NOT_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.b",
    ".writing-1",
    "a\\b",
    "a\nb",
    "a b",
    "ä",
    "a\0b",
    "a\n",
]


def test_what_is_written_is_read_and_replaced(store: Store) -> None:
    data = bytes(range(256)) * 5
    store.write("runs/one/a.json", data)
    assert store.read("runs/one/a.json") == data
    store.write("runs/one/a.json", b"")
    assert store.read("runs/one/a.json") == b""


def test_another_store_at_the_same_uri_sees_it(store: Store) -> None:
    store.write("a/b", b"here")
    assert open_store(store.uri).read("a/b") == b"here"
    assert open_store(store.uri).uri == store.uri


def test_a_missing_key_is_said_to_be_missing(store: Store, tmp_path: Path) -> None:
    store.write("a/b", b"a neighbour")
    target = tmp_path / "target"
    target.write_bytes(b"as it was")
    with pytest.raises(NotInStore, match=r"'a/c' in .*store|'a/c' in s3://"):
        store.read("a/c")
    with pytest.raises(NotInStore, match="'a/c'"):
        store.download("a/c", target)
    assert not store.has("a/c")
    store.delete("a/c")
    assert target.read_bytes() == b"as it was"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["target"]


def test_a_folder_of_keys_is_not_a_key(store: Store) -> None:
    store.write("a/b/c", b"deep")
    for key in ("a", "a/b", "a/b/c/d"):
        assert not store.has(key)
        store.delete(key)
        with pytest.raises(NotInStore):
            store.read(key)
    assert store.read("a/b/c") == b"deep"


def test_keys_are_found_by_the_beginning_of_the_string(store: Store) -> None:
    for key in ("b/2", "b/10", "bc", "a/b/1", "b/1/x"):
        store.write(key, b"x")
    assert store.keys("") == ["a/b/1", "b/1/x", "b/10", "b/2", "bc"]
    assert store.keys("b/") == ["b/1/x", "b/10", "b/2"]
    assert store.keys("b") == ["b/1/x", "b/10", "b/2", "bc"]
    assert store.keys("b/1") == ["b/1/x", "b/10"]
    assert store.keys("nothing/here") == []


def test_items_are_the_keys_with_sizes_and_times(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # an S3 server counts in whole seconds
    for key in ("b/1/x", "a/b/1"):
        store.write(key, key.encode() * 100)
    found = store.items("")
    assert [(item.key, item.size_bytes) for item in found] == [("a/b/1", 500), ("b/1/x", 500)]
    assert all(before <= item.written <= datetime.now(UTC) + timedelta(seconds=2) for item in found)
    assert [item.key for item in store.items("b/")] == ["b/1/x"]
    assert store.items("nothing/") == []


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.keys("") == []
    assert not store.has("a")
    with pytest.raises(NotInStore):
        store.read("a")


def test_what_is_deleted_is_gone(store: Store) -> None:
    store.write("a/b", b"x")
    store.delete("a/b")
    assert not store.has("a/b")
    assert store.keys("") == []


@pytest.mark.parametrize("size_bytes", [0, 1, 33 * 1024 * 1024 + 7], ids=["empty", "small", "parts"])
def test_files_travel_whole(store: Store, tmp_path: Path, size_bytes: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(os.urandom(size_bytes))
    store.upload("objects/ab/file", source)
    version = store.version("objects/ab/file")
    store.download("objects/ab/file", target)
    assert digest_file(target) == digest_file(source)
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    if isinstance(store, LocalStore):
        assert version is None
    if isinstance(store, S3Store):
        head = store._client.head_object(Bucket=store.bucket, Key="some/prefix/objects/ab/file")
        assert version == head["VersionId"]
        assert head["Metadata"] == {"sha256": digest_file(source)}
        assert ("-3" in head["ETag"]) == (size_bytes > 1)  # a multipart upload's ETag ends with the number of parts


def test_a_downloaded_file_is_a_copy(store: Store, tmp_path: Path) -> None:
    store.write("a", b"kept")
    store.download("a", tmp_path / "target")
    with (tmp_path / "target").open("r+b") as file:
        file.write(b"lost")
    assert store.read("a") == b"kept"


def test_a_file_that_cannot_be_read_is_not_uploaded(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"Cannot read '.*nowhere' to put it under 'a': No such file"):
        store.upload("a", tmp_path / "nowhere")
    assert not store.has("a")


def test_a_key_that_leaves_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    calls: list[Callable[[str], object]] = [
        store.read,
        store.has,
        store.version,
        store.delete,
        lambda key: store.write(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.upload(key, tmp_path / "file"),
        lambda key: store.download(key, tmp_path / "target"),
    ]
    for key in NOT_KEYS:
        for call in calls:
            with pytest.raises(StoreError, match="cannot be used: a key is"):
                call(key)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file"]
    assert store.keys("") == []


def test_a_prefix_that_leaves_the_store_is_refused(store: Store) -> None:
    for prefix in ("/", "..", "a/../b", "a//", "../"):
        with pytest.raises(StoreError, match="cannot be used: a key is"):
            store.keys(prefix)


@pytest.mark.parametrize("uri", ["", "store", "file://store", "file:store", "http://host/x", "S3://bucket", "~/x"])
def test_another_kind_of_store_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=r"a store is 'file:///FOLDER' or 's3://BUCKET/PREFIX'"):
        open_store(uri)


def test_only_the_first_create_succeeds(ledger_store: Store) -> None:
    ledger_store.create("ledger/a/00000001.json", b"first")
    with pytest.raises(AlreadyInStore, match=r"'ledger/a/00000001.json' in (file|s3)://"):
        ledger_store.create("ledger/a/00000001.json", b"second")
    assert ledger_store.read("ledger/a/00000001.json") == b"first"
    assert ledger_store.keys("") == ["ledger/a/00000001.json"]


def test_of_sixteen_threads_one_creates(ledger_store: Store) -> None:
    for round_ in range(3):
        key, start = f"ledger/a/{round_:08}.json", threading.Barrier(16)

        def race(name: int, key: str = key, start: threading.Barrier = start) -> int | None:
            start.wait()
            try:
                ledger_store.create(key, b"%d" % name)
            except AlreadyInStore:
                return None
            return name

        with ThreadPoolExecutor(16) as pool:
            winners = [name for name in pool.map(race, range(16)) if name is not None]
        assert len(winners) == 1
        assert ledger_store.read(key) == b"%d" % winners[0]
