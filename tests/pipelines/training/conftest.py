"""Rows for a tiny base: some that it learns at once, and tickets, in memory and as shards in a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from pipelines.bases.pin import PinnedBase, pin_base
from pipelines.recipe import BasePin, Template
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, save_tree
from pipelines.tokens.encode import tokenize
from pipelines.training.compute import Compute
from pipelines.training.shards import Rows

LABELS = ("account", "billing")
SPLITS = {"train": (49, 1), "validation": (20, 2), "test": (30, 3)}  # rows, seed; 49: a last batch of one row


@pytest.fixture(scope="session")
def rows_of(tickets: Any) -> Callable[[Path, int, int], Rows]:
    """Tickets tokenised for a base: `rows_of(base_folder, n, seed)`."""

    def rows_of(base_folder: Path, n: int, seed: int) -> Rows:
        tokenizer = AutoTokenizer.from_pretrained(base_folder)
        made = tickets(n, seed)
        tokens = [tokenizer(ticket.text)["input_ids"] for ticket in made]
        labels = np.array([LABELS.index(ticket.label) for ticket in made], np.int64)
        return Rows([ticket.id for ticket in made], tokens, labels, np.array([len(row) for row in tokens], np.int64))

    return rows_of


@pytest.fixture(scope="session")
def rows() -> dict[str, Rows]:
    """Splits that a tiny base learns in an epoch or two, from whatever seed."""
    return {"train": separable(160, 1), "validation": separable(60, 2)}


def separable(n: int, seed: int) -> Rows:
    """Rows whose label shows in every token: one class has low ids, the other high ones."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    lengths = rng.integers(3, 12, n)
    tokens = [
        (rng.integers(5, 13, length) + 60 * label).tolist() for label, length in zip(labels, lengths, strict=True)
    ]
    return Rows([str(row) for row in range(n)], tokens, labels, lengths)


@dataclass(frozen=True)
class Place:
    """A store with a base and its shards, and where a launch may write."""

    store: LocalStore
    base: PinnedBase
    base_folder: Path
    shards: dict[str, str]  # trees
    folders: dict[str, Path]
    cache: Path


@pytest.fixture(scope="module")
def place(tickets: Any, bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The encoder pinned, and the splits tokenised for it."""
    root = tmp_path_factory.mktemp("place")
    store, cache = LocalStore(root / "store"), root / "home/cache"
    pin = BasePin(name="tiny/bert", sources=(f"file://{bert_folder}",))
    base = pin_base(store, pin, root, root / "scratch")
    shards = {}
    for split, (n, seed) in SPLITS.items():
        folder = root / split
        folder.mkdir()
        frame = pd.DataFrame([vars(ticket) for ticket in tickets(n, seed)])
        frame.to_parquet(folder / "examples.parquet")
        made = tokenize(store, save_tree(store, folder), bert_folder, base.digest, Template(), LABELS, cache)
        shards[split] = made["tree"]
    folders = {split: load_tree(store, tree, cache) for split, tree in shards.items()}
    return Place(store, base, bert_folder, shards, folders, cache)


@pytest.fixture(scope="session")
def one_worker() -> Compute:
    """One process with one thread."""
    return Compute(workers=1, device="cpu", threads=1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch with one thread, as the trainings that are compared bit by bit have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
