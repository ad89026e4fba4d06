"""What lies behind a run's figures: every method's answers, example by example, read back from the store."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import NotInStore
from pipelines.evaluation.measured import metric_of
from pipelines.evaluation.metrics import wilson
from pipelines.evaluation.pages.written import Written, gather_written
from pipelines.evaluation.report import METHODS
from pipelines.evaluation.scores import Scores, load_scores, paired
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes, tree_files

MOST = 12  # errors of a kind that a page tells


@dataclass(frozen=True)
class Slice:
    """How one method does on the test examples of one label: `right` of `n`, and the 95 % interval of its accuracy."""

    right: int
    n: int

    @property
    def accuracy(self) -> float | None:
        """A fraction, or None where there are no examples."""
        return self.right / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """The two-sided 95 % interval by the score test: see `metrics.wilson`. Only where there are examples."""
        return wilson(self.right, self.n, 0.95)


@dataclass(frozen=True)
class Mistake:
    """A test example that the prompt answered wrongly, and which of the other methods did not."""

    id: str
    text: str | None  # None: left out
    label: str
    answered: str
    probability: float
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """The answers of every method that was scored, counted.

    `confusion[method]` is [C, C]: rows are true labels, columns are answers, both in the order of `labels`.
    """

    labels: tuple[str, ...]
    confusion: dict[str, NDArray[np.int64]]
    mistakes: tuple[Mistake, ...]  # the prompt's, the surest first: `MOST` that another avoids, `MOST` that none does

    @property
    def slices(self) -> dict[str, dict[str, Slice]]:
        """`{label: {method: slice}}`."""
        return {
            label: {
                method: Slice(int(table[row, row]), int(table[row].sum())) for method, table in self.confusion.items()
            }
            for row, label in enumerate(self.labels)
        }

    @property
    def errors(self) -> int:
        """How many test examples the prompt answered wrongly."""
        table = self.confusion["prompt"]
        return int(table.sum() - np.trace(table))


def gather(store: Store, record: Mapping[str, Any], texts: bool = True) -> Evidence | Written | None:
    """The evidence of a run; None where it scored nothing, does not name its answers, or the store let go of them.

    Of a run that wrote texts it is some of these.

    Args:
        store: where the answers and the test examples lie.
        record: of the run; `score_digests` names the answers, `data.split_trees` the examples.
        texts: whether the errors come with what was written in them.

    Raises:
        CorruptObject: the bytes of something were changed.
    """
    if metric_of(record):
        return gather_written(store, record, texts)
    digests = record.get("score_digests") or {}
    if "prompt" not in digests:
        return None
    try:
        scores = {method: load_scores(store, digests[method]) for method in METHODS if method in digests}
        said = _texts(store, record["data"]["split_trees"]["test"]) if texts else {}
    except NotInStore:
        return None
    labels = tuple(record["labels"])
    return Evidence(
        labels=labels,
        confusion={method: confusion(each, len(labels)) for method, each in scores.items()},
        mistakes=tuple(_mistakes(scores, labels, said)),
    )


def confusion(scores: Scores, classes: int) -> NDArray[np.int64]:
    """How often each class [rows] was answered as each class [columns]. [C, C]"""
    pairs = scores.label.astype(np.int64) * classes + scores.prediction
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _mistakes(scores: Mapping[str, Scores], labels: tuple[str, ...], texts: Mapping[str, str]) -> list[Mistake]:
    """The prompt's errors, those it was surest of first; what has no text there has None."""
    others = {name: paired(scores["prompt"], each)[1] for name, each in scores.items() if name != "prompt"}
    prompt = paired(scores["prompt"], scores["prompt"])[0]  # in the order of the others
    wrong = np.flatnonzero(~prompt.correct)
    surest = wrong[np.argsort(-prompt.probability[wrong], kind="stable")]
    avoided = np.any([each.correct[surest] for each in others.values()], axis=0) if others else surest >= 0
    told = np.sort(np.concatenate([np.flatnonzero(avoided)[:MOST], np.flatnonzero(~avoided)[:MOST]]))
    return [
        Mistake(
            id=prompt.ids[row],
            text=texts.get(prompt.ids[row]),
            label=labels[prompt.label[row]],
            answered=labels[prompt.prediction[row]],
            probability=float(prompt.probability[row]),
            right=tuple(name for name, other in others.items() if other.correct[row]),
            wrong=tuple(name for name, other in others.items() if not other.correct[row]),
        )
        for row in surest[told]
    ]


def _texts(store: Store, split_tree: str) -> dict[str, str]:
    """`{id: text}` of one split's examples; two texts stand side by side."""
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(load_bytes(store, tree_files(store, split_tree)["examples.parquet"]))).to_pylist()
    return {row["id"]: " | ".join(row[name] for name in ("text", "pair") if name in row) for row in rows}
