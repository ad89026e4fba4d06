"""A store in a folder: a laptop's own, or one on a disk that several machines share.

A file is written beside its final name as `.writing-...`, flushed to the disk, and given its name in one step. What a
killed writer leaves is such a file: it lies under no key, and `promptmint gc` deletes it when it is old.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..errors import AlreadyInStore, NotInStore, StoreError
from ..store.store import Item, checked_key, checked_prefix

_CHUNK_BYTES = 4 * 1024 * 1024
_WRITING = ".writing-"
_WHAT_TO_DO = {
    errno.EROFS: "The disk is mounted read-only: mount it for writing, or choose another folder",
    errno.EACCES: "Choose a folder that you may write",
    errno.EPERM: "Choose a folder that you may write",
    errno.ENOSPC: "The disk is full: make room, or choose a folder on another disk",
    errno.EDQUOT: "Your quota on this disk is used up: make room, or choose a folder on another disk",
    errno.ENOTDIR: "A file is where a folder should be: move it away, or choose another folder",
    errno.EEXIST: "A file is where a folder should be: move it away, or choose another folder",
}


class LocalStore:
    """A store in `folder`, which is made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = f"file://{self.folder}"

    def read(self, key: str) -> bytes:
        """The bytes under `key`. Raises `NotInStore`."""
        with self._reading(key) as file:
            return file.read()

    def write(self, key: str, data: bytes) -> None:
        """Put `data` under `key`, replacing what was there."""
        with replacing(self._path(key)) as file:
            file.write(data)

    def create(self, key: str, data: bytes) -> None:
        """Put `data` under `key` only if nothing is there. Raises `AlreadyInStore`: exactly one of many racers wins."""
        path = self._path(key)
        with _written_beside(path) as (file, building):
            file.write(data)
            flush(file)
            try:
                os.link(building, path)
            except FileExistsError:
                # A network disk that lost its first answer asks again, and then finds the link that it made itself.
                if not building.samefile(path):
                    raise AlreadyInStore(f"Something lies under {key!r} in {self.uri} already.") from None
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
                raise StoreError(
                    f"The disk under {self.uri} makes no hard links ({error.strerror}), so it cannot hold the ledger. "
                    "Set PROMPTMINT_LEDGER to a file:///FOLDER on a disk that does."
                ) from error
            flush_folder(path.parent)

    def upload(self, key: str, path: Path) -> None:
        """Put a file under `key`, replacing what was there."""
        try:
            source = path.open("rb")
        except OSError as error:
            raise StoreError(f"Cannot read {str(path)!r} to put it under {key!r}: {error.strerror}.") from error
        with source, replacing(self._path(key)) as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)

    def version(self, key: str) -> str | None:
        """None, because a folder keeps no versions. Raises `NotInStore`."""
        if not self.has(key):
            raise NotInStore(f"Nothing lies under {key!r} in {self.uri}.")
        return None

    def download(self, key: str, path: Path) -> None:
        """Write what lies under `key` to `path`, atomically. Raises `NotInStore`.

        It is a copy, never a hard link: whoever changes the file must not change the store.
        """
        with self._reading(key) as source, replacing(path) as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)

    def has(self, key: str) -> bool:
        """Whether something lies under `key`."""
        try:
            return self._path(key).is_file()
        except OSError as error:
            raise StoreError(f"Cannot look for {key!r} in {self.uri}: {error.strerror}.") from error

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix` (a string's prefix: `a/b` finds `a/bc`), sorted."""
        top = self.folder / checked_prefix(prefix).rpartition("/")[0]
        found = self._files(top)
        return sorted(key for key in found if key.startswith(prefix) and not key.rpartition("/")[2].startswith("."))

    def items(self, prefix: str) -> list[Item]:
        """The same as `keys`, with sizes and times; what vanishes meanwhile is left out."""
        return self._seen(self.keys(prefix))

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where it is not there."""
        _remove(self._path(key))

    def unfinished(self) -> list[Item]:
        """The files that are still being written, or that a killed writer left."""
        return self._seen(sorted(name for name in self._files(self.folder) if _is_unfinished(name)))

    def discard(self, unfinished: Item) -> None:
        """Remove such a file. Raises `StoreError` for the name of any other."""
        if not _is_unfinished(unfinished.key) or ".." in Path(unfinished.key).parts:
            raise StoreError(f"{unfinished.key!r} in {self.uri} is no unfinished write ('FOLDER/{_WRITING}...').")
        _remove(self.folder / unfinished.key)

    def _files(self, top: Path) -> list[str]:
        """Every file below a folder of the store, named from the store's own folder."""
        found: list[str] = []
        for folder, folders, names in os.walk(top, onerror=self._cannot_list):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(folder).relative_to(self.folder)
            found += [(inside / name).as_posix() for name in names]
        return found

    def _seen(self, names: Iterable[str]) -> list[Item]:
        """Sizes and times of the files that are still there."""
        found = []
        for name in names:
            with suppress(FileNotFoundError):
                about = (self.folder / name).stat()
                found.append(Item(name, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC)))
        return found

    def _path(self, key: str) -> Path:
        return self.folder / checked_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO]:
        """The open file under `key`."""
        try:
            with self._path(key).open("rb") as file:
                yield file
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotInStore(f"Nothing lies under {key!r} in {self.uri}.") from None
        except OSError as error:
            raise StoreError(f"Cannot read {key!r} in {self.uri}: {error.strerror}.") from error

    def _cannot_list(self, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise StoreError(f"Cannot list {error.filename!r} in {self.uri}: {error.strerror}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        StoreError: the disk refuses: read-only, full, not yours; the message names the folder.
    """
    with _written_beside(path) as (file, building):
        yield file
        flush(file)
        building.replace(path)
        flush_folder(path.parent)


@contextmanager
def _written_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the folder of `path`, and its name, which is gone after the block."""
    building = path.parent / f"{_WRITING}{uuid.uuid4().hex}"
    try:
        with refusing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with building.open("xb") as file:
                yield file, building
    finally:
        with suppress(OSError):
            building.unlink()


def _is_unfinished(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_WRITING)


def _remove(path: Path) -> None:
    """Remove a file that may be gone."""
    with refusing(path), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        path.unlink()


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Inside it, what a disk has against writing `path` becomes a `StoreError` that names the folder and what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(_refusal(path, error)) from error


def flush(file: BinaryIO) -> None:
    """Bring what was written onto the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Bring a new name onto the disk itself; some network disks cannot be asked to, and the name is there already."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _refusal(path: Path, error: OSError) -> str:
    what_to_do = _WHAT_TO_DO.get(error.errno or 0, "Check that disk, or choose another folder")
    return (
        f"Cannot write {path.name!r} in the folder {str(path.parent)!r}: {error.strerror or error}. {what_to_do} "
        "(PROMPTMINT_STORE and PROMPTMINT_LEDGER say where stores lie, PROMPTMINT_HOME where the cache lies)."
    )
