"""Files and folders in the store, named by what is in them.

A file lies under `objects/` by its SHA-256; a folder is a small JSON under `trees/` that names its files by theirs.
What two folders share is kept once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock

from ..digests import canonical_json, digest_bytes, digest_file, digest_files, digest_folder, folder_files
from ..errors import CorruptObject, StoreError
from ..store.store import Store


def object_key(digest: str) -> str:
    """Where the file with this SHA-256 lies."""
    return f"objects/{digest[:2]}/{digest}"


def tree_key(digest: str) -> str:
    """Where the list of this folder's files lies."""
    return f"trees/{digest[:2]}/{digest}.json"


def save_bytes(store: Store, data: bytes) -> str:
    """The digest under which `data` now lies in the store."""
    digest = digest_bytes(data)
    if not store.has(object_key(digest)):
        store.write(object_key(digest), data)
    return digest


def load_bytes(store: Store, digest: str) -> bytes:
    """The bytes with this digest, checked.

    Raises:
        NotInStore: nothing was saved under it.
        CorruptObject: what lies there has another digest.
    """
    data = store.read(object_key(digest))
    if (actual := digest_bytes(data)) != digest:
        raise CorruptObject(_corrupt(store, object_key(digest), digest, actual))
    return data


def save_file(store: Store, path: Path) -> str:
    """The digest under which the file now lies in the store."""
    digest = digest_file(path)
    if not store.has(object_key(digest)):
        store.upload(object_key(digest), path)
    return digest


def save_tree(store: Store, folder: Path) -> str:
    """The digest under which the folder now lies in the store; its list is written last."""
    files = {path.relative_to(folder).as_posix(): save_file(store, path) for path in folder_files(folder)}
    digest = digest_files(files)
    if not store.has(tree_key(digest)):
        store.write(tree_key(digest), canonical_json({"files": files}))
    return digest


def tree_files(store: Store, digest: str) -> dict[str, str]:
    """`{POSIX path: SHA-256}` of the folder with this digest, checked.

    Raises:
        NotInStore: no such folder was saved.
        CorruptObject: the list itself was changed, or names a file outside the folder.
    """
    data = store.read(tree_key(digest))
    if (actual := digest_bytes(data)) != digest:  # the list is canonical JSON, so its bytes have the tree's digest
        raise CorruptObject(_corrupt(store, tree_key(digest), digest, actual))
    files: dict[str, str] = json.loads(data)["files"]
    if outside := [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise CorruptObject(
            f"The tree {digest} in {store.uri} names {outside[0]!r}, outside its folder: do not use it."
        )
    return files


def load_tree(store: Store, digest: str, cache: Path) -> Path:
    """A local folder that holds the tree: `cache/DIGEST`, every file checked as it is fetched, published whole.

    Files fetched earlier are served from the cache; where a changed byte matters, see `load_checked_tree`. Of several
    processes that want the same tree one fetches it. A fetch that was broken off goes on with the next file, or,
    from S3, the next byte.

    Raises:
        NotInStore: the tree or one of its files is not in the store.
        CorruptObject: the bytes of a file, or of the list, do not match their digest.
        StoreError: the cache cannot be written.
    """
    folder = cache / digest
    if not folder.is_dir():
        with _alone(cache, digest):
            if not folder.is_dir():
                _fetch(store, digest, cache)
    return folder


def load_checked_tree(store: Store, digest: str, cache: Path) -> Path:
    """The same folder, every byte of it digested again; a spoilt copy in the cache is fetched anew.

    Raises like `load_tree`.
    """
    folder = load_tree(store, digest, cache)
    if digest_folder(folder) != digest:
        with _alone(cache, digest):
            if not folder.is_dir() or digest_folder(folder) != digest:  # else another process has mended it
                shutil.rmtree(folder, ignore_errors=True)
                _fetch(store, digest, cache)
    return folder


@contextmanager
def _alone(cache: Path, digest: str) -> Iterator[None]:
    """A block that one process on this machine at a time is in; the lock of a killed one is free."""
    try:
        (cache / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / ".locks" / digest)
        lock.acquire()
    except OSError as error:
        raise StoreError(
            f"Cannot write the cache {str(cache)!r}: {error}. Set PROMPTMINT_HOME to a folder you own."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fetch(store: Store, digest: str, cache: Path) -> None:
    """Bring the tree into the cache; what a broken connection has left of it is kept and gone on with."""
    building = cache / f".fetching-{digest}"
    try:
        for name, file_digest in tree_files(store, digest).items():
            target = building / name
            if target.is_file() and digest_file(target) == file_digest:
                continue
            _fetch_file(store, file_digest, target)
        building.mkdir(parents=True, exist_ok=True)  # a tree may be empty
        building.rename(cache / digest)
    except StoreError:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _fetch_file(store: Store, digest: str, target: Path) -> None:
    """Bring one file, checked. A wrong one is fetched once more: part of it may have been left by a power cut."""
    for _ in range(2):
        store.download(object_key(digest), target)
        if (actual := digest_file(target)) == digest:
            return
    raise CorruptObject(_corrupt(store, object_key(digest), digest, actual))


def _corrupt(store: Store, key: str, wanted: str, actual: str) -> str:
    return (
        f"The bytes under {key!r} in {store.uri} have changed: wanted SHA-256 {wanted}, found {actual}. "
        "Delete that object and run again: what can be made anew is made anew."
    )
