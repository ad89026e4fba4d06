"""A ledger in a folder, and a shorter way to write into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.promotion.ledger import Entry, register
from pipelines.store.local import LocalStore
from pipelines.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def registered() -> Callable[..., Entry]:
    """Registers one version whose digest tells its number."""

    def make(store: Store, version: int, verdict: str = "passed") -> Entry:
        digest, run = f"{version:064x}", f"run-{version}"
        return register(
            store, "tickets", version, prompt_digest=digest, verdict=verdict, run_key=run, who="flow", why="scored"
        )

    return make
