"""What a store is: bytes under keys, written whole or not at all.

    objects/ab/abcdef...             a file, named by its SHA-256          (trees.py)
    trees/ab/abcdef...json           a folder: {path: SHA-256}             (trees.py)
    memo/STAGE/KEY.json              what a stage made of its inputs       (../memo.py)
    runs/RECIPE/RUN_KEY.json         the last word on one run
    ledger/RECIPE/00000001.json      who is champion, append-only          (../promotion/ledger.py)
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pipelines.errors import StoreError


class Store(Protocol):
    """Bytes under POSIX-style keys. Every write is atomic: a reader sees all of it or nothing."""

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

    def upload(self, key: str, path: Path) -> str | None:
        """Put a file under `key`; the object's version id where the store keeps versions."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write what lies under `key` to `path`, atomically. Raises `NotInStore`."""
        ...

    def has(self, key: str) -> bool:
        """Whether something lies under `key`."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it is not there."""
        ...


def open_store(uri: str) -> Store:
    """The store at `file:///FOLDER` or `s3://BUCKET/PREFIX`.

    Raises:
        StoreError: another scheme, or a store that cannot be reached or written.
    """
    if uri.startswith("file://"):
        from pipelines.store.local import LocalStore

        return LocalStore(Path(uri.removeprefix("file://")))
    if uri.startswith("s3://"):
        from pipelines.store.s3 import S3Store

        return S3Store(uri)
    raise StoreError(f"Cannot open the store {uri!r}: a store is 'file:///FOLDER' or 's3://BUCKET/PREFIX'.")
