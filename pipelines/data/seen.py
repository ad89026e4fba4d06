"""What weights have seen: every text they were tuned and validated on, by digest, kept as one object in the store.

Splits by content never move a text. A split column may, and so may another fraction: then a test example may be one
that older weights were tuned on. Texts count as equal as they do for leaks between splits: whatever their case, their
white space and their label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.splits import normal_texts
from pipelines.memo import Stage, once
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes, load_tree, save_bytes

STAGE = Stage("seen", 1)
KIND = np.dtype("<u8")  # 64 bits of SHA-256: an example that is taken for another costs a needless training, no more
AT_ONCE = 65_536  # rows of a split in memory


def seen_by(store: Store, splits: Sequence[str], cache: Path, earlier: str | None = None) -> str:
    """The digest of an object that names every text in these splits' trees, and all that `earlier` names.

    The object is the sorted digests [n] of 64 bits each, little-endian.
    """

    def compute() -> dict[str, Any]:
        parts = [_digests(load_tree(store, tree, cache)) for tree in splits]
        known = [_read(store, earlier)] if earlier else []
        return {"seen": save_bytes(store, np.unique(np.concatenate([*parts, *known])).tobytes())}

    seen: str = once(store, STAGE, {"splits": sorted(splits), "earlier": earlier}, compute).value["seen"]
    return seen


def seen_again(store: Store, seen: str, split: str, cache: Path) -> int:
    """How many examples of a split's tree are among the texts that `seen` names. Raises `NotInStore`."""
    return int(np.isin(_digests(load_tree(store, split, cache)), _read(store, seen)).sum())


def seen_ids(store: Store, seen: str, split: str, cache: Path) -> list[str]:
    """The ids of the same examples, in their order. Raises `NotInStore`."""
    import pyarrow.parquet as pq

    folder = load_tree(store, split, cache)
    ids = pq.read_table(folder / "examples.parquet", columns=["id"])["id"]
    again: list[str] = ids.filter(np.isin(_digests(folder), _read(store, seen))).to_pylist()
    return again


def _read(store: Store, seen: str) -> NDArray[np.uint64]:
    return np.frombuffer(load_bytes(store, seen), KIND)


def _digests(folder: Path) -> NDArray[np.uint64]:
    """[n] one number per row of a split."""
    return np.fromiter(_each(folder), KIND)


def _each(folder: Path) -> Iterator[int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / "examples.parquet") as file:
        columns = [name for name in ("text", "pair") if name in file.schema_arrow.names]
        for batch in file.iter_batches(AT_ONCE, columns=columns):
            for text in normal_texts(batch.to_pandas()):
                digest = hashlib.sha256(f"promptmint seen 1\0{text}".encode()).digest()
                yield int.from_bytes(digest[:8], "little")
