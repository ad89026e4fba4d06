"""What a writer leaves that was killed in the middle: seen by no reader, found, and removed when it is old."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.errors import StoreError
from pipelines.garbage import abandoned, discard
from pipelines.store.local import LocalStore
from pipelines.store.store import Item, Store

ROOT = Path(__file__).parents[3]
KEY = "objects/ab/abcd"
SIZE_BYTES = 17 * 1024 * 1024  # two parts
DAY = timedelta(days=1)
KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.store.opening import open_store

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

store = open_store(sys.argv[1])
if store.uri.startswith("s3://"):
    store._client.meta.events.register("before-call.s3.CompleteMultipartUpload", die)
else:
    os.fsync = die
store.upload(sys.argv[2], Path(sys.argv[3]))
"""


def killed_upload(store: Store, source: Path, key: str = KEY) -> None:
    """An upload by a process that dies when every byte has arrived and nothing has its name."""
    command = [sys.executable, "-c", KILLED, store.uri, key, str(source)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1024) * (SIZE_BYTES // 1024))
    return path


def test_what_a_killed_writer_left_is_found_and_removed_when_it_is_old(store: Store, source: Path) -> None:
    killed_upload(store, source)
    assert store.keys("") == [] and not store.has(KEY)
    (left,) = store.unfinished()
    assert left.key.startswith("objects/ab/") and left.size_bytes == SIZE_BYTES

    assert abandoned(store, DAY) == ()  # somebody may be at work on it
    later = datetime.now(UTC) + 2 * DAY
    assert abandoned(store, DAY, later) == (left,)
    assert store.unfinished() == [left]  # a look removes nothing

    store.upload(KEY, source)
    discard(store, abandoned(store, DAY, later))
    assert store.unfinished() == []
    assert store.read(KEY) == source.read_bytes()
    discard(store, [left])  # gone already, as where two sweep at once


def test_nothing_is_unfinished_in_a_store_that_only_works(store: Store, source: Path) -> None:
    assert store.unfinished() == []
    store.write("a", b"x")
    store.upload("b", source)
    assert store.unfinished() == []


@pytest.mark.parametrize("name", ["a", "objects/ab/abcd", "../.writing-1", "a/../../.writing-1"])
def test_a_folder_discards_nothing_but_unfinished_writes(file_store: LocalStore, name: str) -> None:
    file_store.write("a", b"x")
    (file_store.folder.parent / ".writing-1").write_bytes(b"somebody else's")
    with pytest.raises(StoreError, match="is no unfinished write"):
        file_store.discard(Item(name, 1, datetime.now(UTC)))
    assert file_store.read("a") == b"x" and (file_store.folder.parent / ".writing-1").exists()


def test_only_the_uploads_below_its_own_prefix_are_a_stores(moto_store: Store, source: Path) -> None:
    from pipelines.store.s3 import S3Store

    other = S3Store(moto_store.uri.replace("some/prefix", "some/prefix2"))
    killed_upload(other, source)
    assert moto_store.unfinished() == [] and len(other.unfinished()) == 1
