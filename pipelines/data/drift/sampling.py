"""A seeded sample of the examples that a run learns from: its training and validation splits, as the store keeps them.

Whole files are never in memory: they are read batch by batch, and of each the chosen rows are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.store.store import Store
from pipelines.store.trees import load_tree

LEARNT_FROM = ("train", "validation")
BATCH = 16_384  # rows read at once


@dataclass(frozen=True)
class Sample:
    """Some of the examples, in the order of the files.

    Attributes:
        of: how many there are in all.
        texts: n of them; of a pair both, one below the other.
        labels: theirs; none where they have texts to be written instead.
        places: `{split: row numbers}` of them, rising; the rows of the split's token shards have the same numbers.
    """

    of: int
    texts: list[str]
    labels: list[str]
    places: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.texts)

    def thinned(self, size: int) -> dict[str, NDArray[np.int64]]:
        """The places of at most `size` of the sampled examples, evenly among them."""
        chosen = np.linspace(0, len(self) - 1, min(size, len(self))).round().astype(np.int64)
        thinned, start = {}, 0
        for split, places in self.places.items():
            here = chosen[(chosen >= start) & (chosen < start + len(places))] - start
            thinned[split] = places[here]
            start += len(places)
        return thinned


def sample(store: Store, split_trees: Mapping[str, str], size: int, seed: int, cache: Path) -> Sample:
    """At most `size` of the examples in `{split: tree}`, each as likely as any other.

    Raises:
        NotInStore: a split is not in the store.
    """
    import pyarrow.parquet as pq

    files = {
        split: pq.ParquetFile(load_tree(store, split_trees[split], cache) / "examples.parquet") for split in LEARNT_FROM
    }
    counts = {split: file.metadata.num_rows for split, file in files.items()}
    total = sum(counts.values())
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:size])
    texts, labels, places, start = [], [], {}, 0
    for split, file in files.items():
        places[split] = chosen[(chosen >= start) & (chosen < start + counts[split])] - start
        start += counts[split]
        for row in _rows(file, places[split]):
            texts.append("\n".join(row[name] for name in ("text", "pair") if name in row))
            labels += [row["label"]] if "label" in row else []
    return Sample(total, texts, labels, places)


def rows_of(store: Store, split_tree: str, cache: Path) -> int:
    """How many examples a split has."""
    import pyarrow.parquet as pq

    rows: int = pq.ParquetFile(load_tree(store, split_tree, cache) / "examples.parquet").metadata.num_rows
    return rows


def _rows(file: Any, places: NDArray[np.int64]) -> list[dict[str, str]]:
    """The rows with these numbers."""
    columns = [name for name in ("text", "pair", "label") if name in file.schema_arrow.names]
    rows: list[dict[str, str]] = []
    start = 0
    for batch in file.iter_batches(BATCH, columns=columns):
        here = places[(places >= start) & (places < start + len(batch))] - start
        rows += batch.take(here).to_pylist()
        start += len(batch)
    return rows
