"""A file fetched in pieces, several at a time, and gone on with after whatever broke it off.

What has arrived lies beside the file's name until it is whole:

    .arriving-NAME            its bytes, each at its place
    .arriving-NAME.journal    what it is of, then a line `START END` for each stretch that was written

A stretch is written before its line, so a process may be killed at any moment: the next one reads the journal and asks
for what is missing, to the byte. A machine that loses its power may keep lines without their bytes; whoever wants a
file checks its digest, and fetches it anew where that is wrong.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ..digests import canonical_json
from ..errors import TransientError
from ..store.local import flush, flush_folder, refusing, replacing

TRIES = 3  # of one piece, in a row and without a byte
_WORKERS = 8
_PIECE_BYTES = 16 * 1024 * 1024
_LEAST_BYTES = 64 * 1024  # what must arrive in the time after which a store counts as stalled
_PAUSE_S = 0.2  # before a piece is asked for again; twice as long the next time


@dataclass(frozen=True)
class About:
    """A file in a store as it lies there now; another `etag` means other bytes."""

    source: str  # where it lies: a URI
    etag: str
    size_bytes: int


@dataclass(frozen=True)
class News:
    """How far a download is."""

    name: str  # of the file that it becomes
    done_bytes: int
    size_bytes: int


Ask = Callable[[], About]
Read = Callable[[About, int, int], Iterator[bytes]]
listeners: list[Callable[[News], None]] = []  # told many times a second


def fetch(ask: Ask, read: Read, path: Path, stall_s: float) -> None:
    """Write a file to `path`, atomically; what an earlier call has left of it is not asked for again.

    A line that breaks is replaced, from the byte where it broke. Who fetches to the same path meanwhile waits.

    Args:
        ask: what lies there now.
        read: the bytes from one offset to another, as they come in. It raises where they are other bytes by now, and
            `TransientError` where the line is silent for a third of `stall_s`.
        path: where it shall lie.
        stall_s: seconds in which 64 KiB must come in, over all lines together.

    Raises:
        NotInStore: there is nothing to read.
        TransientError: the store cannot be reached, or stalls; what has arrived is kept for the next call.
        StoreError: the store refuses, or the disk does.
    """
    about = _patiently(ask)
    building = path.with_name(f".arriving-{path.name}")
    with refusing(path), _alone(building) as file, closing(_Partial(file, path, about)) as partial:
        _bring_all(read, partial, _Pulse(stall_s))
        flush(file)
        partial.journal.unlink()  # first: a journal must never outlive its bytes
        building.replace(path)
        flush_folder(path.parent)


def _patiently(ask: Ask) -> About:
    """What lies there; asked for again where the first answers are lost."""
    for failures in range(1, TRIES):
        with suppress(TransientError):
            return ask()
        time.sleep(_PAUSE_S * failures)
    return ask()


def _bring_all(read: Read, partial: _Partial, pulse: _Pulse) -> None:
    """Fetch what is missing, several pieces at a time; the first that cannot be had ends them all."""
    with ThreadPoolExecutor(_WORKERS, "fetch") as pool:
        jobs = [pool.submit(_bring, read, partial, pulse, *piece) for piece in partial.missing()]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            pulse.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _bring(read: Read, partial: _Partial, pulse: _Pulse, start: int, end: int) -> None:
    """Fetch one piece; where its line breaks, on another from the byte where it broke."""
    failures = 0
    while start < end and not pulse.stop.is_set():
        try:
            for chunk in read(partial.about, start, end):
                partial.keep(start, chunk)
                start, failures = start + len(chunk), 0
                pulse.beat(len(chunk))
                if pulse.stop.is_set() or pulse.stalled:
                    break
            else:
                if start < end:  # some lines end like this when they break
                    raise TransientError(f"Cannot reach {partial.about.source}: {end - start:,} bytes did not come.")
        except TransientError:
            failures += 1
            if failures == TRIES and not pulse.stalled:
                raise
            pulse.stop.wait(_PAUSE_S * failures)
        if start < end and pulse.stalled:
            raise pulse.error(partial.about.source)


class _Pulse:
    """Whether bytes still come in, and whether anybody wants them."""

    def __init__(self, stall_s: float) -> None:
        self.stop = threading.Event()
        self._stall_s, self._lock = stall_s, threading.Lock()
        self._since_s, self._count = time.monotonic(), 0

    def beat(self, count: int) -> None:
        """Note that so many bytes came in."""
        with self._lock:
            self._count += count
            if self._count >= _LEAST_BYTES:
                self._since_s, self._count = time.monotonic(), 0

    @property
    def stalled(self) -> bool:
        """Whether too few came in for too long."""
        return time.monotonic() - self._since_s >= self._stall_s

    def error(self, source: str) -> TransientError:
        """What to raise then."""
        return TransientError(
            f"The store stalls: of {source} only {self._count:,} bytes came in the last {self._stall_s:g} s. What has "
            "arrived is kept: try again, and it goes on from there. PROMPTMINT_S3_STALL_S is how long to wait."
        )


class _Partial:
    """What has arrived of a file, and its journal. Several threads may write to it."""

    def __init__(self, file: BinaryIO, path: Path, about: About) -> None:
        """Take over what lies in `file`, if its journal says that it is of the same bytes; else begin anew."""
        self.about, self.journal = about, path.with_name(f".arriving-{path.name}.journal")
        self._name, self._file, self._lock = path.name, file, threading.Lock()
        head = canonical_json(asdict(about)) + b"\n"
        whole = os.fstat(file.fileno()).st_size == about.size_bytes
        self._kept = _stretches(self.journal, head) if whole else []
        with replacing(self.journal) as journal:  # without a last line that was cut, or those of other bytes
            journal.write(head + b"".join(_line(start, end) for start, end in self._kept))
        file.truncate(about.size_bytes)
        self._lines = self.journal.open("ab", buffering=0)
        self._done_bytes = about.size_bytes - sum(end - start for start, end in self.missing())

    def missing(self) -> list[tuple[int, int]]:
        """`(start, end)` of what was still to fetch at the beginning, in pieces."""
        pieces, at, size = [], 0, self.about.size_bytes
        for start, end in [*sorted(self._kept), (size, size)]:
            pieces += [(each, min(each + _PIECE_BYTES, start)) for each in range(at, start, _PIECE_BYTES)]
            at = max(at, end)
        return pieces

    def keep(self, start: int, chunk: bytes) -> None:
        """Write what came in, then its line."""
        with self._lock:
            self._file.seek(start)
            self._file.write(chunk)
            self._file.flush()
            self._lines.write(_line(start, start + len(chunk)))
            self._done_bytes += len(chunk)
            for tell in listeners:
                tell(News(self._name, self._done_bytes, self.about.size_bytes))

    def close(self) -> None:
        """Keep nothing more."""
        self._lines.close()


def _line(start: int, end: int) -> bytes:
    return b"%d %d\n" % (start, end)


def _stretches(journal: Path, head: bytes) -> list[tuple[int, int]]:
    """`(start, end)` of each stretch that a journal names; none where it is of other bytes, or cannot be read."""
    with suppress(OSError, ValueError):
        first, *lines, _ = journal.read_bytes().split(b"\n")  # the last was cut, or is empty
        if first + b"\n" == head:
            return [(int(start), int(end)) for start, end in (line.split() for line in lines)]
    return []


@contextmanager
def _alone(building: Path) -> Iterator[BinaryIO]:
    """The file `building`, made where there is none. Who else wants it waits; the lock of a killed process is free."""
    building.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with os.fdopen(os.open(building, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_there(building, file):  # else it was published while this one waited
                yield file
                return


def _is_there(path: Path, file: BinaryIO) -> bool:
    """Whether an open file still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False
