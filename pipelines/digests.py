"""Names for immutable things: SHA-256 over canonical JSON, over a file, over a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def canonical_json(value: object) -> bytes:
    """UTF-8 bytes that are equal for equal values: keys sorted, no spaces, no NaN.

    Raises:
        ValueError: a NaN or an infinity is in `value`: JSON has no word for them.
        TypeError: something in `value` is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: object) -> str:
    """The SHA-256 (64 hex digits) of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def digest_bytes(data: bytes) -> str:
    """The SHA-256 (64 hex digits) of some bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """The SHA-256 (64 hex digits) of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path) -> list[Path]:
    """Every file below `folder`, in the order of their POSIX paths."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.relative_to(folder).as_posix()
    )


def digest_files(files: Mapping[str, str]) -> str:
    """The digest of a tree, from `{POSIX path inside it: SHA-256 of the file}`."""
    return digest_json({"files": dict(files)})


def digest_folder(folder: Path) -> str:
    """The digest of everything below `folder`: names and bytes, not times or permissions."""
    return digest_files({path.relative_to(folder).as_posix(): digest_file(path) for path in folder_files(folder)})


def short(digest: str) -> str:
    """The first twelve digits: enough for a person to compare."""
    return digest[:12]
