"""A run of a made-up recipe, with its answers and its test texts in a store: small, but of everything there is."""

from __future__ import annotations

import html.parser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.validate import write_rows
from pipelines.digests import canonical_json
from pipelines.evaluation.gates import judge
from pipelines.evaluation.metrics import summary
from pipelines.evaluation.scores import load_scores, save_scores
from pipelines.recipe import Budgets, Gates, NonInferiority
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_bytes, save_tree

LABELS = ("apples", "boats & <b>ships</b>", "cider")
SIZES = {"prompt": 7712, "lora": 7712, "full": 22_568_456, "head_only": 3080}
SECONDS = {"prompt": 103.3, "lora": 77.6, "full": 80.5, "head_only": 13.4}
EPOCHS = [{"epoch": e, "loss": 1 / e, "validation_loss": 1.1 / e, "validation_accuracy": 0.7 + e / 10} for e in (1, 2)]
N = 300
WORDS = {"more": [["peel", 0.001, 0.002]], "less": [], "new": [["<b>quince", 0.0, 0.004]]}


class _Texts(html.parser.HTMLParser):
    """What a reader of a page reads, and the elements that it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._skipped = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._skipped = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._skipped = False

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.words.append(data)


class Page:
    """A page as its reader sees it."""

    def __init__(self, source: str) -> None:
        self.source = source
        parser = _Texts()
        parser.feed(source)
        self.elements = parser.elements
        self.text = " ".join(" ".join(parser.words).split())

    def of(self, element: str, class_: str) -> list[dict[str, str | None]]:
        """The attributes of every such element that has this class."""
        return [a for name, a in self.elements if name == element and class_ in (a.get("class") or "").split()]


@pytest.fixture
def read() -> Callable[[str], Page]:
    """Reads a page: `read(source).text`, `.elements`, `.of(element, class_)`."""
    return Page


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def record(store: LocalStore, tmp_path: Path) -> dict[str, Any]:
    """The record of a run whose prompt answers 33 of 300 test examples wrongly, most surely number 0."""
    rng = np.random.default_rng(3)
    label = np.arange(N) % 3
    ids = [f"{row:064x}" for row in range(N)]

    def scored(wrong: int) -> str:
        logits = np.eye(3)[label] * rng.uniform(1, 3, size=(N, 1))
        logits[:wrong] = np.eye(3)[(label[:wrong] + 1) % 3] * np.linspace(6, 1, wrong)[:, None]
        return save_scores(store, ids, label, logits)

    digests = {"prompt": scored(33), "lora": scored(30), "full": scored(21), "head_only": scored(90)}
    loaded = {name: load_scores(store, digest) for name, digest in digests.items()}
    gates = Gates(
        non_inferior=(NonInferiority(to="lora", margin=5), NonInferiority(to="full", margin=5),
                      NonInferiority(to="champion", margin=1)),
        per_label_accuracy=0.5, max_ece=0.5, budgets=Budgets(artifact_bytes=30_000),
    )  # fmt: skip
    costs = {"artifact_bytes": 31_200, "trainable_params": SIZES["prompt"]}
    texts = [f"text number {row} <script>alert({row})</script>" for row in range(N)]
    split = tmp_path / "split"
    split.mkdir()
    rows = pd.DataFrame({"id": ids, "text": texts, "label": [LABELS[each] for each in label]})
    write_rows(rows, split / "examples.parquet")
    return {
        "recipe": "orchard",
        "description": "Whether somebody speaks of apples or of <boats>",
        "run_key": "a" * 64,
        "at": "2026-11-21T13:15:00+00:00",
        "version": 3,
        "prompt_digest": "b" * 64,
        "base_digest": "c" * 64,
        "data_digest": "d" * 64,
        "recipe_digest": "e" * 64,
        "artifact": "f" * 64,
        "labels": list(LABELS),
        "settings": {
            "seed": 17, "prompt": {"method": "p-tuning-v2", "tokens": 16}, "gates": {"confidence": 0.95},
            "data": {"path": "talk.csv"}, "base": {"name": "stranger/tiny-bert"},
        },
        **judge(gates, loaded, costs, seed=1, labels=LABELS).to_json(),
        "scores": {
            "zero_shot": None,
            **{
                name: summary(each) | {"trainable_params": SIZES[name], "artifact_bytes": 4 * SIZES[name],
                                       "train_seconds": SECONDS[name]}
                for name, each in loaded.items()
            },
        },
        "score_digests": digests,
        "trained": {
            name: {"seconds": SECONDS[name], "kept_epoch": 2, "reused": name == "full",
                   "curve": [[step, 2 / step] for step in range(1, 41)],
                   "epochs": EPOCHS}
            for name in digests
        },
        "seconds": {"validate": 2.0, "train": 274.8},
        "aliases": {"champion": 1, "challenger": 3},
        "power": [],
        "unchanged": False,
        "data": {
            "tree": "1" * 64,
            "split_trees": {"test": save_tree(store, split)},
            "split_digests": {"train": "2" * 64, "validation": "3" * 64, "test": "4" * 64},
            "rows": {"read": 3000, "accepted": 2958, "quarantined": 40, "leaks_dropped": 2, "duplicates": 0},
            "splits": {"train": 2000, "validation": 658, "test": N},
            "labels": {side: dict.fromkeys(LABELS, 100) for side in ("train", "validation", "test")},
            "reasons": {"too long | <script>": 31, "no text": 9},
            "expectations": {"passed": 12, "failed": []},
            "ok": True,
            "problems": [],
        },
    }  # fmt: skip


@pytest.fixture
def drifted(store: LocalStore, record: dict[str, Any]) -> dict[str, Any]:
    """The run's record, its labels moved and its champion not quite fair."""
    numbers = {"labels": (0.28, 0.16, 0.34), "length": (0.25, 0.05, 0.3), "unseen": (0.01, -0.01, 0.03)}
    measures = [
        {"name": name, "title": f"title of {name}", "estimate": at, "low": low, "high": high, "chance": 0.04,
         "threshold": 0.1, "moved": low > 0.1, "reason": f"reason for {name}"}
        for name, (at, low, high) in numbers.items()
    ]  # fmt: skip
    drift = {
        "then": "refresh", "why_not": "", "against": {"version": 2, "snapshot": "d" * 64}, "measures": measures,
        "moved": ["labels"], "labels": {"apples": [0.4, 0.6], "boats <i>": [0.6, 0.4]},
        "lengths": {"edges": [0.0, 10.0, 20.0], "before": [0.5, 0.5], "after": [0.2, 0.8]},
        "rows": {"before": 5000, "after": 6000, "sampled": [2000, 2000], "embedded": [0, 0]},
        "words": save_bytes(store, canonical_json(WORDS)),
    }  # fmt: skip
    seen = {"version": 2, "examples": 7, "of": 300, "ids": "e" * 64, "why_not": ""}
    return {**record, "drift": drift, "seen_by_champion": seen}
