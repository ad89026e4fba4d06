"""A champion in a store, its data, and data that came after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.data.writing import write_rows
from pipelines.promotion.champion import Champion
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree

Rows = Sequence[tuple[str, str]]
Splits = Callable[..., dict[str, str]]

LABELS = ("apples", "boats")
WORDS = {"apples": ["core", "peel", "cider"], "boats": ["sail", "mast", "deck"]}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def talk() -> Callable[..., list[tuple[str, str]]]:
    """`talk(n, seed, apples=0.5)`: texts of a few words with their labels, some of them about apples."""

    def talk(n: int, seed: int, apples: float = 0.5) -> list[tuple[str, str]]:
        rng = np.random.default_rng(seed)
        made = []
        for _ in range(n):
            label = LABELS[int(rng.random() >= apples)]
            made.append((" ".join(rng.choice(WORDS[label], size=rng.integers(2, 9))), label))
        return made

    return talk


@pytest.fixture
def splits(store: LocalStore, tmp_path: Path) -> Splits:
    """Saves rows of every split, and gives `{split: tree}`; the texts of a test are of its own unless it says so.

    `truth` is the column of what stands beside the texts: label or target.
    """

    def splits(learnt: Rows, test: Rows = (("of its own", "apples"),), truth: str = "label") -> dict[str, str]:
        trees = {}
        for split, rows in (
            ("train", learnt[: -len(learnt) // 5]),
            ("validation", learnt[-len(learnt) // 5 :]),
            ("test", test),
        ):
            folder = tmp_path / f"{split}-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            frame = pd.DataFrame(list(rows), columns=["text", truth])
            write_rows(frame.assign(id=[f"{n:04d}" for n in range(len(frame))]), folder / "examples.parquet")
            trees[split] = save_tree(store, folder)
        return trees

    return splits


@pytest.fixture
def champion() -> Callable[..., Champion]:
    """`champion(trees, labels)`: version 3, made by a run on these splits."""

    def champion(trees: dict[str, str], labels: Sequence[str] = LABELS) -> Champion:
        record = {"labels": list(labels), "data": {"split_trees": trees}, "data_digest": "d" * 64, "run_key": "a" * 64}
        return Champion(3, record, 5)

    return champion
