"""Downloads over bad lines: cut, silent, trickling, killed in the middle, wanted by several, changed meanwhile.

What passes the line is counted, so that nothing is fetched twice unseen.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.digests import digest_file
from pipelines.errors import CorruptObject, NotInStore, StoreError, TransientError
from pipelines.store import ranged
from pipelines.store.s3 import S3Store
from pipelines.store.trees import load_checked_tree, load_tree, object_key, save_tree

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
SIZE = 12 * MIB
PIECE = 2 * MIB
ON_MOTO = pytest.mark.parametrize("direct", ["moto"], indirect=True)
LOAD = """
import sys
from pathlib import Path
from pipelines.store import ranged
from pipelines.store.opening import open_store
from pipelines.store.trees import load_tree
ranged._PIECE_BYTES = int(sys.argv[4])
print(load_tree(open_store(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
"""


class Line:
    """A TCP line to `upstream` that can be slowed down, cut or silenced; it counts the bytes that came through."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.passed = 0  # bytes from the server, headers included
        self.cut_at: int | None = None  # when so many have passed, every connection breaks, once
        self.silent_at: int | None = None  # from so many on nothing passes any more
        self.pause_s = 0.0  # after each 64 KiB of a connection
        self.chunk = 64 * 1024
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nothing more, and break what there is."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.upstream)
                with self._lock:
                    self._ends += [client, server]
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(self.chunk):
                if answers and not self._lets_through(len(data)):
                    continue
                target.sendall(data)
                if answers and self.pause_s:
                    time.sleep(self.pause_s)

    def _lets_through(self, count: int) -> bool:
        with self._lock:
            if self.silent_at is not None and self.passed >= self.silent_at:
                return False
            self.passed += count
            due = self.cut_at is not None and self.passed >= self.cut_at
            self.cut_at = None if due else self.cut_at
        if due:
            self.cut()
        return True


@pytest.fixture(params=["moto", pytest.param("radosgw", marks=pytest.mark.s3)])
def direct(request: pytest.FixtureRequest) -> S3Store:
    """A store on each S3 server in turn, or on moto's alone."""
    store: S3Store = request.getfixturevalue(f"{request.param}_store")
    return store


@pytest.fixture
def line(direct: S3Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The line that stores opened from now on are reached by; pieces are small, so that there are several."""
    host, port = os.environ["PROMPTMINT_S3_ENDPOINT"].removeprefix("http://").split(":")
    line = Line((host, int(port)))
    monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", line.endpoint)
    monkeypatch.setattr(ranged, "_PIECE_BYTES", PIECE)
    yield line
    line.close()


@pytest.fixture
def base(direct: S3Store, tmp_path: Path) -> tuple[str, Path]:
    """The digest of a tree in the store with one large file, and the folder it was saved from."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    (folder / "config.json").write_bytes(b"{}")
    return save_tree(direct, folder), folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def same(loaded: Path, folder: Path) -> bool:
    """Whether two folders hold the same files, and nothing else."""
    digests = [{each.name: digest_file(each) for each in made.iterdir()} for made in (loaded, folder)]
    return digests[0] == digests[1]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_line_that_breaks_is_taken_up_at_the_byte(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path
) -> None:
    line.cut_at, line.pause_s = SIZE // 2, 0.002
    assert same(load_tree(S3Store(direct.uri), base[0], cache), base[1])
    assert line.cut_at is None, "it did break"
    assert line.passed < 1.2 * SIZE


def test_a_silent_store_ends_in_time_and_is_gone_on_with(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", "1.5")
    line.silent_at, line.pause_s = SIZE // 2, 0.002
    began = time.monotonic()
    with pytest.raises(TransientError, match=rf"stalls: of {direct.uri}/objects/.* in the last 1\.5 s.*STALL_S"):
        load_tree(S3Store(direct.uri), base[0], cache)
    assert 1.5 <= time.monotonic() - began < 6
    assert not (cache / base[0]).exists()
    line.silent_at = None
    assert same(load_tree(S3Store(direct.uri), base[0], cache), base[1])
    assert line.passed < 1.2 * SIZE


@ON_MOTO
def test_a_trickle_counts_as_silence(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", "1.5")
    store = S3Store(direct.uri)
    store.read(object_key(digest_file(base[1] / "config.json")))
    line.chunk, line.pause_s = 500, 0.1
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"stalls: of .* only [1-9][\d,]* bytes came"):
        store.download(object_key(digest_file(base[1] / "model.safetensors")), cache / "file")
    assert 1.5 <= time.monotonic() - began < 6


@ON_MOTO
def test_a_store_that_does_not_even_begin_ends_in_time(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", "0.9")
    line.silent_at = 0
    began = time.monotonic()
    with pytest.raises(TransientError, match="Cannot reach"):
        S3Store(direct.uri).download(object_key("0" * 64), cache / "file")
    assert time.monotonic() - began < 5


def test_a_killed_process_is_gone_on_with(direct: S3Store, line: Line, base: tuple[str, Path], cache: Path) -> None:
    line.pause_s = 0.02
    command = [sys.executable, "-c", LOAD, direct.uri, base[0], str(cache), str(PIECE)]
    first = subprocess.Popen(command, cwd=ROOT)
    until(lambda: line.passed > SIZE // 2)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert line.passed < SIZE and not (cache / base[0]).exists()
    line.pause_s = 0
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert same(cache / base[0], base[1])
    assert line.passed < 1.15 * SIZE + MIB, "what had come is not fetched again"
    assert [each.name for each in cache.iterdir() if each.name != ".locks"] == [base[0]]


def test_four_processes_fetch_it_once(direct: S3Store, line: Line, base: tuple[str, Path], cache: Path) -> None:
    line.pause_s = 0.01
    command = [sys.executable, "-c", LOAD, direct.uri, base[0], str(cache), str(PIECE)]
    racers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [racer.communicate(timeout=60)[0].strip() for racer in racers] == [str(cache / base[0])] * 4
    assert same(cache / base[0], base[1])
    assert SIZE < line.passed < 1.05 * SIZE


@ON_MOTO
def test_a_base_spoilt_on_the_disk_is_fetched_anew(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path
) -> None:
    store = S3Store(direct.uri)
    weights = load_tree(store, base[0], cache) / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"spoilt")
    assert same(load_checked_tree(store, base[0], cache), base[1])
    assert 2 * SIZE < line.passed < 2.1 * SIZE


@ON_MOTO
def test_a_part_spoilt_on_the_disk_is_fetched_anew(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine lost its power: the journal names bytes that never reached the disk."""
    left = broken_off(direct, line, base, cache, monkeypatch)
    left.write_bytes(bytes(SIZE))
    assert same(load_tree(S3Store(direct.uri), base[0], cache), base[1])


@pytest.mark.parametrize("spoil", [
    lambda journal: journal.unlink(),
    lambda journal: journal.write_bytes(b""),
    lambda journal: journal.write_bytes(journal.read_bytes() + b"nonsense\n"),
    lambda journal: journal.write_bytes(journal.read_bytes() + b"1048576 20"),
    lambda journal: journal.write_bytes(journal.read_bytes().replace(b'"etag"', b'"gate"')),
], ids=["gone", "empty", "nonsense", "torn", "of another"])  # fmt: skip
def test_a_spoilt_journal_costs_time_only(
    moto_store: S3Store, tmp_path: Path, cache: Path, spoil: Callable[[Path], object]
) -> None:
    moto_store.write("a", data := os.urandom(3000))
    about = moto_store._about("a")
    with ranged._alone(cache / ".arriving-a") as file:
        partial = ranged._Partial(file, cache / "a", about)
        partial.keep(1000, data[1000:2500])
        partial.close()
    spoil(partial.journal)
    moto_store.download("a", cache / "a")
    assert (cache / "a").read_bytes() == data
    assert [each.name for each in cache.iterdir()] == ["a"]


def test_a_file_that_changes_meanwhile_is_never_a_mixture(
    direct: S3Store, line: Line, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged, "_PIECE_BYTES", MIB // 4)
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(os.urandom(SIZE))
    new.write_bytes(os.urandom(SIZE))
    direct.upload("a", old)
    line.pause_s = 0.02
    changed = threading.Thread(target=lambda: (until(lambda: line.passed > SIZE // 4), direct.upload("a", new)))
    changed.start()
    with pytest.raises(TransientError, match="412"):
        S3Store(direct.uri).download("a", cache / "a")
    changed.join()
    S3Store(direct.uri).download("a", cache / "a")
    assert digest_file(cache / "a") == digest_file(new)


@ON_MOTO
def test_threads_that_fetch_to_one_path_wait_for_each_other(direct: S3Store, tmp_path: Path, cache: Path) -> None:
    direct.write("a", data := os.urandom(MIB))
    threads = [threading.Thread(target=direct.download, args=("a", cache / "a")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cache / "a").read_bytes() == data
    assert [each.name for each in cache.iterdir()] == ["a"]


def test_nothing_and_one_byte(direct: S3Store, cache: Path) -> None:
    for data in (b"", b"x"):
        direct.write("a", data)
        direct.download("a", cache / "a")
        assert (cache / "a").read_bytes() == data
    with pytest.raises(NotInStore):
        direct.download("b", cache / "b")
    assert [each.name for each in cache.iterdir()] == ["a"]


@ON_MOTO
def test_a_spoilt_object_is_refused_after_a_second_look(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path
) -> None:
    direct.write(object_key(digest_file(base[1] / "model.safetensors")), bytes(SIZE))
    with pytest.raises(CorruptObject):
        load_tree(S3Store(direct.uri), base[0], cache)
    assert line.passed < 2.1 * SIZE


def test_a_server_that_knows_no_ranges_is_refused(
    moto_store: S3Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged, "_PIECE_BYTES", 1000)
    moto_store.write("a", bytes(1500))
    moto_store._reader.meta.events.register(
        "before-sign.s3.GetObject", lambda request, **_: request.headers.__delitem__("Range")
    )
    with pytest.raises(StoreError, match=r"asked for (1,000|500) bytes, the server sends 1,500"):
        moto_store.download("a", cache / "a")


@ON_MOTO
def test_listeners_hear_how_far_it_is(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[ranged.News] = []
    monkeypatch.setattr(ranged, "listeners", [heard.append])
    broken_off(direct, line, base, cache, monkeypatch)
    so_far = max(each.done_bytes for each in heard)
    heard.clear()
    load_tree(S3Store(direct.uri), base[0], cache)
    large = [each for each in heard if each.name == "model.safetensors"]
    assert min(each.done_bytes for each in large) > so_far > 0, "what was there already counts"
    assert max(each.done_bytes for each in large) == SIZE


def broken_off(
    direct: S3Store, line: Line, base: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What a download that was broken off in the middle has left of the large file."""
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", "0.6")
    line.silent_at = SIZE // 2
    with pytest.raises(TransientError):
        load_tree(S3Store(direct.uri), base[0], cache)
    line.silent_at = None
    monkeypatch.delenv("PROMPTMINT_S3_STALL_S")
    return cache / f".fetching-{base[0]}" / ".arriving-model.safetensors"
