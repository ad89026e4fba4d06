"""The store at an address, and those that the settings name."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from ..settings import ledger_uri, store_uri
from .local import LocalStore
from .store import Store


def open_store(uri: str) -> Store:
    """The store at `file:///FOLDER` or `s3://BUCKET/PREFIX`; opening it reads and writes nothing.

    Raises:
        StoreError: another scheme, a relative folder, or a name that no bucket can have.
    """
    if uri.startswith("file:///"):  # the path is taken as it is written: %20 is three characters of it
        return LocalStore(Path(uri.removeprefix("file://")))
    if uri.startswith("s3://"):
        from .s3 import S3Store  # with boto3, which takes its time

        return S3Store(uri)
    raise StoreError(f"Cannot open the store {uri!r}: a store is 'file:///FOLDER' or 's3://BUCKET/PREFIX'.")


def the_store() -> Store:
    """The store that the settings name: everything immutable."""
    return open_store(store_uri())


def the_ledger() -> Store:
    """The store that the settings name for the ledger."""
    return open_store(ledger_uri())
