"""Scores: what a model answered for every test example, kept as one small Parquet file in the store.

The gates compare methods example by example, so the answers themselves are kept, never only their mean. Rows are sorted
by id: the same answers have the same digest, in whatever order and batches they were computed.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError, TrainingError
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes, save_bytes


class Rowed(Protocol):
    """A table with a row for each example: scores of classes, or of texts."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def at(self, rows: Sequence[int]) -> Self: ...

    def __len__(self) -> int: ...


Table = TypeVar("Table", bound=Rowed)


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per example, all of length n: the true class, the class answered, and how sure the model was of it."""

    ids: tuple[str, ...]
    label: NDArray[np.int32]  # [n] index into the recipe's labels
    prediction: NDArray[np.int32]  # [n] likewise
    probability: NDArray[np.float32]  # [n] softmax of the class answered, 0..1

    def at(self, rows: Sequence[int]) -> Scores:
        """The scores of some rows, in that order."""
        places = list(rows)
        names = tuple(self.ids[row] for row in places)
        return Scores(names, self.label[places], self.prediction[places], self.probability[places])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each answer is right. [n]"""
        return np.asarray(self.prediction == self.label)

    def __len__(self) -> int:
        return len(self.ids)


def from_logits(
    ids: Sequence[str], labels: Sequence[int] | NDArray[np.integer], logits: NDArray[np.floating]
) -> Scores:
    """The scores of n examples whose class logits are `logits`, sorted by id.

    Args:
        ids: n different names.
        labels: [n] the true classes, 0..C-1.
        logits: [n, C] before the softmax.

    Raises:
        DataError: nothing was scored, the shapes do not fit, a label is out of range, or an id comes twice.
        TrainingError: a logit is not a finite number.
    """
    values, truth = np.asarray(logits, np.float64), np.asarray(labels)
    if values.ndim != 2 or not 0 < len(ids) == len(truth) == len(values):
        raise DataError(
            f"Cannot score {len(ids)} ids with labels of shape {truth.shape!r} and logits of shape {values.shape!r}: "
            "there must be n ids, n labels and [n, classes] logits, and n must not be 0."
        )
    if not np.isfinite(values).all():
        name = ids[int(np.argmin(np.isfinite(values).all(axis=1)))]
        raise TrainingError(f"The model answered example {name!r} with a logit that is no number: lower its rate.")
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise DataError(
            f"Labels reach from {truth.min()!s} to {truth.max()!s}, but the model knows the classes "
            f"0 to {values.shape[1] - 1}: score it with the recipe it was trained with."
        )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = tuple(ids[row] for row in order)
    if twice := next((a for a, b in pairwise(names) if a == b), None):
        raise DataError(f"The example {twice!r} was scored twice: every id must be there once.")
    values, truth = values[order], truth[order]
    prediction = values.argmax(axis=1)
    # The class answered has the largest logit, so its softmax is 1 / sum of exp(logit - largest).
    probability = 1 / np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1)
    return Scores(names, truth.astype(np.int32), prediction.astype(np.int32), probability.astype(np.float32))


def save_scores(
    store: Store, ids: Sequence[str], labels: Sequence[int] | NDArray[np.integer], logits: NDArray[np.floating]
) -> str:
    """The digest under which the scores of `logits` [n, C] now lie in the store. Raises like `from_logits`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = from_logits(ids, labels, logits)
    columns = {
        "id": scores.ids,
        "label": scores.label,
        "prediction": scores.prediction,
        "probability": scores.probability,
    }
    file = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), file, compression="zstd")
    return save_bytes(store, file.getvalue())


def load_scores(store: Store, digest: str) -> Scores:
    """The scores with this digest, their bytes checked.

    Raises:
        NotInStore: nothing was saved under it.
        CorruptObject: the bytes were changed.
        DataError: what was saved under it is not a table of scores.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(load_bytes(store, digest)))
        label, prediction, probability = (
            table.column(name).to_numpy().astype(kind)
            for name, kind in (("label", np.int32), ("prediction", np.int32), ("probability", np.float32))
        )
        return Scores(tuple(table.column("id").to_pylist()), label, prediction, probability)
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(
            f"The object {digest!r} in {store.uri} is no table of scores ({error}). Use a digest that save_scores gave."
        ) from None


def paired(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """The same two scores, row i of one and row i of the other about the same example.

    Raises:
        DataError: they do not cover the same examples, or do not agree on an example's true class.
    """
    first, second = in_one_order(a, b)
    if (differ := np.flatnonzero(first.label != second.label)).size:
        raise DataError(
            f"Two models were scored against different labels: {differ.size} of {len(a)} examples differ, the first is "
            f"{first.ids[differ[0]]!r}. Score both on the same test split."
        )
    return first, second


def in_one_order(a: Table, b: Table) -> tuple[Table, Table]:
    """Two tables of scores, each sorted by id. Raises `DataError` where they do not cover the same examples."""
    only_a, only_b = set(a.ids) - set(b.ids), set(b.ids) - set(a.ids)
    if only_a or only_b or len(a) != len(b):
        raise DataError(
            f"Two models were scored on different examples ({len(a)} and {len(b)}): {_some(only_a)} only by the first, "
            f"{_some(only_b)} only by the second. Score both on the same test split."
        )
    one, other = (each.at(sorted(range(len(each)), key=each.ids.__getitem__)) for each in (a, b))
    return one, other


def among(scores: Table, ids: Collection[str]) -> Table:
    """The scores of these examples alone, in their order; examples that were not scored are passed over."""
    asked = frozenset(ids)
    return scores.at([row for row, name in enumerate(scores.ids) if name in asked])


def _some(names: set[str]) -> str:
    """How many, and the first three by name."""
    return f"{len(names)} ({', '.join(map(repr, sorted(names)[:3]))})" if names else "0"
