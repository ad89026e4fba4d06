"""Scores of everything that was tuned, on the same held-out examples, each computed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from pipelines.evaluation.scores import save_scores
from pipelines.evaluation.texts import from_texts, save_texts
from pipelines.memo import Stage, recall, remember
from pipelines.recipe import Head
from pipelines.store.store import Store
from pipelines.store.trees import load_tree
from pipelines.training.compute import Compute
from pipelines.training.job import ScoreJob
from pipelines.training.launch import News, launch
from pipelines.training.shards import read_rows, read_texts

STAGE = Stage("score", 3)


@dataclass(frozen=True)
class Contender:
    """Something to score: stored weights (None: the untouched base) and how they sit on the base."""

    name: str
    kind: str
    tree: str | None
    settings: dict[str, Any]
    head: Head
    labels: tuple[str, ...]
    shards: str | None = None  # what to answer, in the place of what all answer


def score_all(
    store: Store,
    contenders: Sequence[Contender],
    base_digest: str,
    base_folder: Path,
    shards: str,
    compute: Compute,
    cache: Path,
    on_news: News,
) -> dict[str, str]:
    """`{contender: digest of its scores}` on the shards of one split, or on those that a contender brings.

    Args:
        store: holds the weights and the shards, and keeps the scores.
        contenders: on one base.
        base_digest: of that base; `base_folder` holds its files.
        shards: the tree of the split to score, tokenised for that base.
        compute: where to run.
        cache: for weights and shards.
        on_news: called with each line of a worker's progress.
    """
    digests: dict[str, str] = {}
    missing: dict[str, tuple[ScoreJob, dict[str, Any]]] = {}
    for contender in contenders:
        asked = contender.shards or shards
        inputs = _inputs(contender, base_digest, asked)
        if known := recall(store, STAGE, inputs):
            digests[contender.name] = known.value["scores"]
        else:
            missing[contender.name] = (_job(contender, load_tree(store, asked, cache), store, cache), inputs)
    read = lru_cache(maxsize=1)(read_rows)  # most contenders answer the same

    def keep(name: str, finished: Path) -> None:
        job = missing[name][0]
        if job.head.generates:
            texts = json.loads((finished / "texts.json").read_bytes())
            digests[name] = save_texts(store, from_texts(_references(job.rows), texts))
        else:
            rows, logits = read(job.rows), load_file(finished / "logits.safetensors")["logits"]
            digests[name] = save_scores(store, rows.ids, rows.labels, logits)
        remember(store, STAGE, missing[name][1], {"scores": digests[name]}, 0.0)

    if missing:
        launch(base_folder, [job for job, _ in missing.values()], compute, on_news, keep, cache.parent / "work")
    return digests


def _references(rows: Path) -> dict[str, list[str]]:
    """`{input: what is right}` of the shards that were asked, in the order of the answers."""
    asked = read_texts(rows)
    return {name: [asked.references[row] for row in places] for name, places in asked.examples().items()}


def _job(contender: Contender, rows: Path, store: Store, cache: Path) -> ScoreJob:
    weights = load_tree(store, contender.tree, cache) if contender.tree else None
    return ScoreJob(
        name=contender.name, kind=contender.kind, weights=weights, settings=contender.settings, head=contender.head,
        labels=contender.labels, rows=rows,
    )  # fmt: skip


def _inputs(contender: Contender, base_digest: str, shards: str) -> dict[str, Any]:
    return {
        "weights": contender.tree, "kind": contender.kind, "settings": contender.settings, "base": base_digest,
        "head": contender.head.model_dump(mode="json"), "shards": shards,
    }  # fmt: skip
