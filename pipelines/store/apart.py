"""A store over another one: what lies there is seen, what stages remembered there is not, and nothing is written there.

Whatever runs in it runs really, and leaves its results in a store of its own.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.store.store import Item, Store

HIDDEN = "memo/"


class Apart:
    """The store `below` without its memos; what is written goes to `own`, which is asked first."""

    def __init__(self, below: Store, own: Store) -> None:
        self._below = below
        self._own = own
        self.uri = own.uri

    def read(self, key: str) -> bytes:
        """The bytes under `key`. Raises `NotInStore`."""
        return self._holder(key).read(key)

    def write(self, key: str, data: bytes) -> None:
        """Put `data` under `key` of the own store."""
        self._own.write(key, data)

    def create(self, key: str, data: bytes) -> None:
        """Put `data` under `key` of the own store if nothing is there. Raises `AlreadyInStore`."""
        self._own.create(key, data)

    def upload(self, key: str, path: Path) -> None:
        """Put a file under `key` of the own store."""
        self._own.upload(key, path)

    def version(self, key: str) -> str | None:
        """The id that the store that holds `key` gave it. Raises `NotInStore`."""
        return self._holder(key).version(key)

    def download(self, key: str, path: Path) -> None:
        """Write what lies under `key` to `path`, atomically. Raises `NotInStore`."""
        self._holder(key).download(key, path)

    def has(self, key: str) -> bool:
        """Whether something lies under `key`."""
        return self._holder(key).has(key)

    def keys(self, prefix: str) -> list[str]:
        """Every key of both that starts with `prefix`, sorted."""
        return [item.key for item in self.items(prefix)]

    def items(self, prefix: str) -> list[Item]:
        """The same as `keys`, with sizes and times."""
        seen = {item.key: item for item in self._below.items(prefix) if not item.key.startswith(HIDDEN)}
        own = {item.key: item for item in self._own.items(prefix)}
        return [item for _, item in sorted((seen | own).items())]

    def delete(self, key: str) -> None:
        """Remove `key` from the own store."""
        self._own.delete(key)

    def unfinished(self) -> list[Item]:
        """Writes to the own store that were begun and not ended."""
        return self._own.unfinished()

    def discard(self, unfinished: Item) -> None:
        """Remove what such a write left."""
        self._own.discard(unfinished)

    def _holder(self, key: str) -> Store:
        return self._own if key.startswith(HIDDEN) or self._own.has(key) else self._below
