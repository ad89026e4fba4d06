"""What a store is: bytes under keys, written whole or not at all.

    objects/ab/abcdef...             a file, named by its SHA-256          (trees.py)
    trees/ab/abcdef...json           a folder: {path: SHA-256}             (trees.py)
    memo/STAGE/KEY.json              what a stage made of its inputs       (../memo.py)
    runs/RECIPE/RUN_KEY.json         the last word on one run
    watch/RECIPE.json                which data were announced last         (../data/arrivals.py)
    ledger/RECIPE/00000001.json      who is champion, append-only          (../promotion/ledger.py)

Keys under `probe/` live for a moment only: see s3.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..errors import StoreError

# No segment begins with a dot: that rules out `..`, and leaves such names to files that are still being written.
_KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*)*")


@dataclass(frozen=True)
class Item:
    """Something in a store: its key, its size, and when it was written last."""

    key: str
    size_bytes: int
    written: datetime  # in UTC, by the store's own clock


class Store(Protocol):
    """Bytes under POSIX-style keys. Every write is atomic: a reader sees all of it or nothing.

    Every method raises `StoreError` for a key that `checked_key` refuses and for a store that refuses the call, and
    `TransientError` where trying again may help.
    """

    uri: str

    def read(self, key: str) -> bytes:
        """The bytes under `key`. Raises `NotInStore`."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put `data` under `key`, replacing what was there."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Put `data` under `key` only if nothing is there. Raises `AlreadyInStore`: exactly one of many racers wins."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Put a file under `key`, replacing what was there."""
        ...

    def version(self, key: str) -> str | None:
        """The store's own id of what lies under `key`, where it keeps versions. Raises `NotInStore`."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write what lies under `key` to `path`, atomically. Raises `NotInStore`."""
        ...

    def has(self, key: str) -> bool:
        """Whether something lies under `key`."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix` (a string's prefix: `a/b` finds `a/bc`), sorted."""
        ...

    def items(self, prefix: str) -> list[Item]:
        """The same as `keys`, with sizes and times."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it is not there."""
        ...

    def unfinished(self) -> list[Item]:
        """Writes that were begun and not ended, sorted: of killed writers, and of those at work. No reader sees them.

        Each has a name of its own that is no key; `written` is when somebody was last seen at it.
        """
        ...

    def discard(self, unfinished: Item) -> None:
        """Remove what a write left that will never be ended; nothing happens where it is gone."""
        ...


def by_name(store: Store, prefix: str) -> dict[str, list[str]]:
    """`{NAME: its keys}` of all that lies under `PREFIX/NAME/`, names and keys sorted; one listing, however many."""
    found: dict[str, list[str]] = {}
    for key in store.keys(prefix):
        found.setdefault(key.removeprefix(prefix).partition("/")[0], []).append(key)
    return dict(sorted(found.items()))


def checked_key(key: str) -> str:
    """The key itself, fit for a folder and for a bucket alike.

    Raises:
        StoreError: an empty key or segment, a leading dot or slash, `..`, or a character beyond ASCII and `._=@+-`.
    """
    if not _KEY.fullmatch(key):
        raise StoreError(
            f"The key {key!r} cannot be used: a key is 'a/b/c', each part made of letters, digits and ._=@+- and not "
            "starting with a dot."
        )
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix itself: empty, or the beginning of a key that `checked_key` would allow."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix
