"""Processes that write one ledger at once: exactly one wins what only one can win, and nothing is lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

import pytest

from pipelines.errors import LedgerConflict
from pipelines.promotion.ledger import Entry, promote, read, register, state
from pipelines.store.local import LocalStore

NAME = "tickets"


@pytest.fixture(scope="module")
def racers() -> Iterator[Pool]:
    """Sixteen processes that wait for work; they come from a server without threads, whatever this process has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.promotion.ledger"])
    with context.Pool(16) as pool:
        pool.map(abs, range(64), chunksize=1)
        yield pool


def outcome(racer: AsyncResult[Any]) -> Entry | LedgerConflict:
    try:
        entry: Entry = racer.get(timeout=60)
        return entry
    except LedgerConflict as lost:
        return lost


@pytest.mark.parametrize("agreed", [True, False])
def test_sixteen_processes_race_for_the_throne(
    store: LocalStore, registered: Callable[..., Entry], racers: Pool, agreed: bool
) -> None:
    """Agreed: all decided on the same state, so one wins. Else each decides on what it sees when it comes."""
    for version in range(1, 17):
        registered(store, version)
    crown = partial(promote, store, NAME, why="mine", expected=16 if agreed else None)
    started = [
        racers.apply_async(crown, kwds={"version": version, "who": f"racer-{version}"}) for version in range(1, 17)
    ]
    told = [outcome(racer) for racer in started]
    won = {each.sequence: each.version for each in told if isinstance(each, Entry)}
    lost = [str(each) for each in told if isinstance(each, LedgerConflict)]
    entries = read(store, NAME)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry.sequence: entry.version for entry in entries[16:]} == won
    assert len(won) + len(lost) == 16 and all("first (promoted version" in reason for reason in lost)
    assert len(won) == 1 if agreed else len(won) >= 1
    assert state(entries).champion == won[max(won)]


def test_racing_registrations_all_arrive_once(store: LocalStore, racers: Pool) -> None:
    enter = partial(register, store, NAME, prompt_digest="x", verdict="passed", run_key="r", who="flow", why="")
    twice = [version for version in range(16) for _ in range(2)]  # every version by two processes
    for racer in [racers.apply_async(enter, kwds={"version": version}) for version in twice]:
        racer.get(timeout=60)
    assert sorted(entry.version for entry in read(store, NAME)) == list(range(16))
