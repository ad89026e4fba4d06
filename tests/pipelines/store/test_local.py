"""What only a store in a folder can suffer: full and read-only disks, killed writers, odd file systems."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import AlreadyInStore, NotInStore, StoreError
from pipelines.store.local import LocalStore, replacing

ROOT = Path(__file__).parents[3]
UPLOAD = """
import pathlib, sys
from pipelines.store.local import LocalStore
LocalStore(pathlib.Path(sys.argv[1])).upload("big", pathlib.Path("/dev/zero"))
"""
RACE = """
import pathlib, sys, time
from pipelines.errors import AlreadyInStore
from pipelines.store.local import LocalStore
store, name = LocalStore(pathlib.Path(sys.argv[1])), sys.argv[2]
store.write(f"ready/{name}", b"")
while not store.has("go"):
    time.sleep(0.001)
for entry in range(20):
    try:
        store.create(f"ledger/{entry}", name.encode())
        print(entry)
    except AlreadyInStore:
        pass
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs '{folder}'"
    mounted = subprocess.run(["/bin/sh", "-c", mount], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"A FULL DISK WAS NOT TESTED: mounting is not permitted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store's folder with one key, `old`, that cannot be written any more."""
    if os.geteuid():
        folder = tmp_path / "read-only"
        LocalStore(folder).write("old", b"old")
        folder.chmod(0o555)
        return folder
    folder = request.getfixturevalue("small_disk")  # nothing but a mount stops root
    LocalStore(folder).write("old", b"old")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_opening_touches_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert store.keys("") == [] and not store.has("a")
    store.delete("a")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("store"))
    monkeypatch.chdir("/")
    store.write("a", b"x")
    assert (tmp_path / "store" / "a").read_bytes() == b"x"
    assert store.uri == f"file://{tmp_path}/store"


def test_a_full_disk_is_named_and_left_clean(small_disk: Path, tmp_path: Path) -> None:
    store, big = LocalStore(small_disk / "store"), tmp_path / "big"
    big.write_bytes(bytes(2 * 1024 * 1024))
    store.write("a", b"old")
    wanted = rf"folder '{small_disk}/store': No space left on device. The disk is full: make room"
    with pytest.raises(StoreError, match=wanted):
        store.write("a", big.read_bytes())
    with pytest.raises(StoreError, match=wanted):
        store.create("b", big.read_bytes())
    with pytest.raises(StoreError, match=wanted):
        store.upload("c", big)
    assert store.read("a") == b"old"
    assert files_below(small_disk) == ["a"]


def test_a_full_cache_is_named_and_left_clean(small_disk: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("a", bytes(2 * 1024 * 1024))
    with pytest.raises(StoreError, match=rf"'target' in the folder '{small_disk}': No space.*PROMPTMINT_HOME"):
        store.download("a", small_disk / "target")
    assert files_below(small_disk) == []


def test_a_read_only_folder_is_named(read_only: Path, tmp_path: Path) -> None:
    store = LocalStore(read_only)
    (tmp_path / "file").write_bytes(b"x")
    wanted = (
        rf"folder '{read_only}(/new)?': (Read-only file system|Permission denied)\. .*(mount it|that you may write)"
    )
    for call in (
        lambda: store.write("new", b"x"),
        lambda: store.create("new/new", b"x"),
        lambda: store.upload("new", tmp_path / "file"),
        lambda: store.delete("old"),
    ):
        with pytest.raises(StoreError, match=wanted):
            call()
    assert store.read("old") == b"old"
    assert files_below(read_only) == ["old"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"not a folder")
    store = LocalStore(tmp_path / "store")
    for key in ("a", "a/b"):
        with pytest.raises(StoreError, match=r"A file is where a folder should be: move it away"):
            store.write(key, b"x")
        assert not store.has(key)
        with pytest.raises(NotInStore):
            store.read(key)
    assert store.keys("") == []
    assert (tmp_path / "store").read_bytes() == b"not a folder"


def test_a_disk_without_hard_links_cannot_hold_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)  # what FAT and some network disks answer
    with pytest.raises(StoreError, match=r"makes no hard links .*Set PROMPTMINT_LEDGER"):
        LocalStore(tmp_path / "store").create("ledger/1", b"x")
    assert files_below(tmp_path) == []


def test_a_link_whose_answer_was_lost_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")  # what a network disk says to the second asking

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    store = LocalStore(tmp_path / "store")
    store.create("ledger/1", b"mine")
    assert store.read("ledger/1") == b"mine"
    with pytest.raises(AlreadyInStore), monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        store.create("ledger/1", b"other")


def test_of_eight_processes_one_creates_each_entry(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, store.folder, str(name)], cwd=ROOT, stdout=subprocess.PIPE)
        for name in range(8)
    ]
    try:
        wait_until(lambda: len(store.keys("ready/")) == len(racers))
        store.write("go", b"")
        won = [racer.communicate(timeout=60)[0].decode().split() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
    assert sorted(int(entry) for entries in won for entry in entries) == list(range(20))
    for name, entries in enumerate(won):
        assert all(store.read(f"ledger/{entry}") == b"%d" % name for entry in entries)


def test_a_killed_writer_leaves_nothing_under_the_key(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    writer = subprocess.Popen([sys.executable, "-c", UPLOAD, store.folder], cwd=ROOT)
    try:
        wait_until(lambda: any(p.stat().st_size > 1_000_000 for p in store.folder.glob(".writing-*")))
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
    assert not store.has("big")
    assert store.keys("") == []
    assert [name[:9] for name in files_below(tmp_path)] == [".writing-"]
    store.write("big", b"whole")
    assert store.read("big") == b"whole"


def test_readers_see_the_old_or_the_new(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("a", b"o" * 100_000)
    with replacing(store.folder / "a") as file:
        file.write(b"n" * 50_000)
        file.flush()
        assert store.read("a") == b"o" * 100_000
        assert store.keys("") == ["a"]
    assert store.read("a") == b"n" * 50_000


def test_an_interrupted_write_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert files_below(tmp_path) == ["a"]


def test_what_lies_in_hidden_folders_is_no_key(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("a", b"x")
    (store.folder / ".snapshot").mkdir()
    (store.folder / ".snapshot" / "a").write_bytes(b"x")
    (store.folder / ".DS_Store").write_bytes(b"x")
    assert store.keys("") == ["a"]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalStore(tmp_path / "store").write("a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "store" / "a").stat().st_mode & 0o777 == 0o640


def test_a_name_the_disk_does_not_take_is_refused(tmp_path: Path) -> None:
    store, long = LocalStore(tmp_path / "store"), "a" * 300
    for call in (lambda: store.write(long, b""), lambda: store.read(long), lambda: store.has(long)):
        with pytest.raises(StoreError, match="File name too long"):
            call()
    with pytest.raises(StoreError, match="File name too long"):
        store.keys(f"{long}/")
    with pytest.raises(StoreError, match="File name too long"):
        store.delete(long)


def wait_until(true: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
