"""An immutable raw copy of what arrived: the source files in the store, byte for byte."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.sources import fetched
from pipelines.digests import digest_file, digest_files
from pipelines.errors import DataError
from pipelines.recipe import Data
from pipelines.store.store import Store
from pipelines.store.trees import save_tree, tree_files


@dataclass(frozen=True)
class Snapshot:
    """The tree under which the source files lie in the store, `{name: SHA-256}`, and what they weigh."""

    digest: str
    files: dict[str, str]
    size_bytes: int


def snapshot(store: Store, data: Data, folder: Path) -> Snapshot:
    """The source files as a tree in the store.

    They are copied before they are digested: a file that somebody still writes to is saved as it was at one moment.

    Raises:
        DataError: the files cannot be found or read.
        StoreError: the store cannot be written.
    """
    with fetched(data, folder) as sources, tempfile.TemporaryDirectory(prefix="promptmint-snapshot-") as name:
        staging = Path(name)
        for inside, path in sources.items():
            (staging / inside).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, staging / inside)
            except OSError as error:
                raise DataError(_unreadable(path, error)) from error
        size_bytes = sum((staging / inside).stat().st_size for inside in sources)
        digest = save_tree(store, staging)
    return Snapshot(digest, tree_files(store, digest), size_bytes)


def source_digest(data: Data, folder: Path) -> str | None:
    """The digest that `snapshot` will have, without writing to a store; None for a set on the hub.

    Local files are digested where they lie; objects in S3 are downloaded for it.

    Raises:
        DataError: the files cannot be found or read.
        StoreError: the S3 bucket cannot be reached.
    """
    if data.path.startswith("hf://"):
        return None
    with fetched(data, folder) as sources:
        files = {}
        for name, path in sources.items():
            try:
                files[name] = digest_file(path)
            except OSError as error:
                raise DataError(_unreadable(path, error)) from error
    return digest_files(files)


def _unreadable(path: Path, error: OSError) -> str:
    return f"Cannot read {str(path)!r}: {error.strerror or error}. Check its permissions and try again."
