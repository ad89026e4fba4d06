"""Scores made by hand: from what was right and what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation.scores import Scores
from pipelines.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def answered() -> Callable[[list[bool]], Scores]:
    """Scores over examples 0, 1, ... of class 1, each answered right or wrong as told."""

    def make(right: list[bool]) -> Scores:
        n = len(right)
        ids = tuple(f"{number:06d}" for number in range(n))
        return Scores(ids, np.ones(n, np.int32), np.array(right).astype(np.int32), np.full(n, 0.9, np.float32))

    return make
