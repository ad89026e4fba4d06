"""What a prompt wrote, beside what it should have: its worst texts, and some that stand for all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import NotInStore
from pipelines.evaluation.report import METHODS
from pipelines.evaluation.texts import METRICS, TextScores, load_texts, paired_texts
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes, tree_files
from pipelines.tokens.targets import input_name

MOST = 8  # texts of a kind that a page tells
SHOWN = 3  # references of one text


@dataclass(frozen=True)
class WrittenText:
    """A test example: what was asked, what was written and what is right; all None where texts are left out."""

    id: str
    score: float  # of the prompt's text by itself, 0..1
    asked: str | None
    answer: str | None
    references: tuple[str, ...]
    others: tuple[tuple[str, str], ...]  # (method, what it wrote)


@dataclass(frozen=True)
class Written:
    """The texts of a run that its page tells."""

    metric: str  # in words
    of: int  # examples
    worst: tuple[WrittenText, ...]
    usual: tuple[WrittenText, ...]  # spread evenly over all, from the worst to the best


def gather_written(store: Store, record: Mapping[str, Any], texts: bool = True) -> Written | None:
    """The texts of a run that wrote some; None where it scored none, or the store let go of them.

    The arguments are those of `evidence.gather`.
    """
    digests, metric = record.get("score_digests") or {}, record["settings"]["gates"]["metric"]
    if "prompt" not in digests:
        return None
    try:
        scores = {method: load_texts(store, digests[method]) for method in METHODS if method in digests}
        asked = _asked(store, record["data"]["split_trees"]["test"]) if texts else {}
    except NotInStore:
        return None
    prompt = scores["prompt"]
    others = {name: each for name, each in scores.items() if name != "prompt" and len(each) == len(prompt)}
    paired = {name: paired_texts(prompt, each)[1] for name, each in others.items()}
    prompt = paired_texts(prompt, prompt)[0]
    each = prompt.of_each(metric)
    order = np.argsort(each, kind="stable")
    usual = order[np.linspace(0, len(order) - 1, min(MOST, len(order))).round().astype(int)]

    def told(rows: Sequence[int]) -> tuple[WrittenText, ...]:
        return tuple(_told(prompt, paired, int(row), float(each[row]), asked) for row in rows)

    return Written(METRICS[metric], len(prompt), told(order[:MOST].tolist()), told(usual.tolist()))


def _told(
    prompt: TextScores, others: Mapping[str, TextScores], row: int, score: float, asked: Mapping[str, str]
) -> WrittenText:
    name = prompt.ids[row]
    if name not in asked:
        return WrittenText(name, score, None, None, (), ())
    said = tuple((method, each.texts[row]) for method, each in others.items())
    return WrittenText(name, score, asked[name], prompt.texts[row], prompt.references[row][:SHOWN], said)


def _asked(store: Store, split_tree: str) -> dict[str, str]:
    """`{input: what was asked}` of one split's examples; two texts stand side by side."""
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(load_bytes(store, tree_files(store, split_tree)["examples.parquet"]))).to_pylist()
    return {
        input_name(row["text"], row.get("pair")): " | ".join(row[name] for name in ("text", "pair") if name in row)
        for row in rows
    }
