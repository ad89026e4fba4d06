"""Where examples come from: files on disk, under an S3 prefix, or in a set on the Hugging Face hub.

Nothing here imports pandas or pyarrow at module level: deciding that data are unchanged must cost well under a second.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipelines.errors import DataError, TransientError, listed
from pipelines.recipe import Data

if TYPE_CHECKING:
    from pipelines.store.store import Store

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
PROSE = ("", ".md", ".rst")  # what may lie in a folder of data without being data: README.md, LICENSE
HUB_URI = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)(\?config=(?P<config>[\w.-]+))?")


@contextmanager
def fetched(data: Data, folder: Path) -> Iterator[dict[str, Path]]:
    """The source files as local ones, `{name in the snapshot: path}`; what was downloaded is deleted afterwards.

    Raises:
        DataError: nothing lies there, or something that cannot be read.
        StoreError: the S3 bucket cannot be reached.
        TransientError: the hub cannot be reached.
    """
    if not data.path.startswith(("s3://", "hf://")):
        yield list_files(data, folder)
        return
    with tempfile.TemporaryDirectory(prefix="promptmint-source-") as name:
        target = Path(name)
        yield _from_s3(data.path, target) if data.path.startswith("s3://") else _from_hub(data, target)


def list_files(data: Data, folder: Path) -> dict[str, Path]:
    """The local files that `data.path` names, `{name in the snapshot: absolute path}`, sorted by name.

    A folder gives every file below it; a path that exists is taken as it is, even with a `*` in its name. Names are
    basenames, or paths below the files' common folder where two basenames are equal.

    Raises:
        DataError: nothing there, or a file in a format that is not read.
    """
    path = (folder / data.path).resolve()
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and not _is_aside(file.relative_to(path))]
    else:
        # Path.glob refuses an absolute pattern and one that climbs with "..".
        found = glob.glob(data.path, root_dir=folder, recursive=True) if glob.has_magic(data.path) else []  # noqa: PTH207
        files = [file for file in ((folder / name).resolve() for name in found) if file.is_file()]
    if not files:
        raise DataError(f"There are no data at {str(path)!r} (data.path = {data.path!r}). {_near(path)}")
    _check_formats(files, data.path)
    return _named(files)


def marks(data: Data, folder: Path) -> dict[str, str]:
    """`{file: a mark that changes when the file does}`, without a look into the files.

    It is made of size and time of the last change, and on a disk of the inode. S3 counts in seconds: two looks at a
    bucket should be at least one apart.

    Raises:
        DataError: nothing lies there, or something that is not read.
        StoreError: the S3 bucket cannot be reached.
    """
    if data.path.startswith("s3://"):
        return _in_s3(data.path)[1]
    try:
        files = {name: path.stat() for name, path in list_files(data, folder).items()}
    except OSError as error:
        raise DataError(f"A file of {data.path!r} went away while it was looked at: {error}. Look again.") from error
    return {name: f"{file.st_size}-{file.st_mtime_ns}-{file.st_ino}" for name, file in files.items()}


def _is_aside(inside: PurePath) -> bool:
    """Whether a file in a folder of data is not data: hidden, a marker such as `_SUCCESS`, or prose."""
    return inside.suffix.lower() in PROSE or any(part.startswith((".", "_")) for part in inside.parts)


def _check_formats(files: Iterable[PurePath], path: str) -> None:
    """Raises `DataError` where a file's suffix is not one that is read."""
    if strange := [file.name for file in files if file.suffix.lower() not in SUFFIXES]:
        raise DataError(
            f"Cannot read {listed(strange)} (data.path = {path!r}): promptmint reads {listed(SUFFIXES)}. "
            "Convert the file, or name the ones to read with a glob such as 'folder/*.csv'."
        )


def _named(files: Iterable[Path]) -> dict[str, Path]:
    """Files by basename; by their path below the folder they share where basenames collide."""
    files = sorted(set(files))
    by_name = {file.name: file for file in files}
    if len(by_name) < len(files):
        shared = Path(*_common_parts([file.parent.parts for file in files]))
        by_name = {file.relative_to(shared).as_posix(): file for file in files}
    return dict(sorted(by_name.items()))


def _common_parts(paths: list[tuple[str, ...]]) -> list[str]:
    """The leading parts that all paths share."""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _near(path: Path) -> str:
    """What lies in the nearest folder above `path` that exists, for an error message."""
    parent = next(parent for parent in (path, *path.parents) if parent.is_dir())
    names = sorted(entry.name for entry in parent.iterdir())
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"In {str(parent)!r} there are: {listed(names[:12])}{more}."


def _from_s3(uri: str, target: Path) -> dict[str, Path]:
    """The objects that `uri` names, downloaded."""
    bucket, found = _in_s3(uri)
    for key in found:
        (target / key).parent.mkdir(parents=True, exist_ok=True)
        bucket.download(key, target / key)
    return _named(target / key for key in found)


def _in_s3(uri: str) -> tuple[Store, dict[str, str]]:
    """The folder in a bucket, and the marks of the objects that `uri` names: under a prefix, or by the last part."""
    from pipelines.store.opening import open_store

    parent, _, last = uri.rpartition("/")
    single = glob.has_magic(last) or PurePosixPath(last).suffix.lower() in SUFFIXES
    bucket = open_store(parent if single else uri.rstrip("/"))
    items = {PurePosixPath(item.key): f"{item.size_bytes}-{item.written.isoformat()}" for item in bucket.items("")}
    for key in items:
        if ".." in key.parts or key.is_absolute():
            raise DataError(f"The key {str(key)!r} under {uri!r} would leave the folder it is fetched into. Rename it.")
    if single:
        named = {key: mark for key, mark in items.items() if len(key.parts) == 1 and fnmatchcase(key.name, last)}
    else:
        named = {key: mark for key, mark in items.items() if not _is_aside(key)}
    if not named:
        raise DataError(
            f"There are no data at {uri!r}: no object there. A prefix ends with '/' or with a folder's name."
        )
    _check_formats(named, uri)
    return bucket, {str(key): mark for key, mark in named.items()}


def _from_hub(data: Data, target: Path) -> dict[str, Path]:
    """Every split of a set on the hub as `SPLIT.parquet`, fetched at the revision that the recipe pins."""
    uri = HUB_URI.fullmatch(data.path)
    if uri is None:
        raise DataError(
            f"Cannot read {data.path!r}: a set on the hub is 'hf://ORG/SET@REVISION' or "
            "'hf://ORG/SET@REVISION?config=NAME'; take a commit as REVISION, so that the data cannot change."
        )
    import datasets
    import httpx

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(
            uri["name"], uri["config"], revision=uri["revision"], cache_dir=str(target / "cache")
        )
    except (ConnectionError, TimeoutError, httpx.TransportError) as error:
        raise TransientError(
            f"The hub cannot be reached for {data.path!r}: {error}. Try again, check HF_HUB_OFFLINE and HF_ENDPOINT, "
            "or download the set once and name its folder in data.path."
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"Cannot read {data.path!r} from the hub: {error}.") from error
    return write_hub_splits(found, target)


def write_hub_splits(splits: Mapping[str, Any], target: Path) -> dict[str, Path]:
    """`{'SPLIT.parquet': path}` for the splits of a hub set (`datasets.DatasetDict`), deterministic bytes.

    Class labels become their names. A column `split` with the hub's split is added where there is none, so that
    `split = "split"` in `[data]` honours the hub's splits.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {}
    for split, rows in sorted(splits.items()):
        table = rows.with_format("arrow")[:].replace_schema_metadata(None)
        for column, feature in rows.features.items():
            if names := getattr(feature, "names", None):
                words = [names[i] if i is not None and 0 <= i < len(names) else None for i in rows[column]]
                position = table.column_names.index(column)
                table = table.set_column(position, column, pa.array(words, pa.string()))
        if "split" not in table.column_names:
            table = table.append_column("split", pa.array([split] * len(table), pa.string()))
        files[f"{split}.parquet"] = target / f"{split}.parquet"
        pq.write_table(table, files[f"{split}.parquet"])
    return files
