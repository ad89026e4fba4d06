"""What prompts cost, told by what became of them, over a ledger's whole history."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.costs import Cost
from pipelines.promotion.fleet import fleet, spent
from pipelines.promotion.ledger import Entry, promote, read, register, roll_back
from pipelines.promotion.spending import Spent, spending
from pipelines.runs import finish
from pipelines.store.local import LocalStore


def test_each_version_counts_once_as_what_became_of_it(store: LocalStore) -> None:
    for version, verdict in enumerate(("passed", "passed", "refused", "inconclusive", "refused"), 1):
        register(store, "t", version, prompt_digest="p", verdict=verdict, run_key=f"r{version}", who="flow", why="")
    promote(store, "t", 1, who="ann", why="")
    promote(store, "t", 5, who="ann", why="I insist", force=True)
    roll_back(store, "t", who="bob", why="slow")
    costs = {"r1": Cost(1, 10), "r3": Cost(4, 40), "r4": Cost(8, 80), "r5": Cost(16, 160)}
    found = spending(read(store, "t"), costs.get)
    assert found == {
        "promoted": Spent(2, 0, Cost(17, 170)),
        "refused": Spent(1, 0, Cost(4, 40)),
        "other": Spent(1, 1, Cost(8, 80)),  # version 2 waits, and nobody counted what it cost
    }
    assert found["promoted"].each == Cost(8.5, 85) and Spent(unknown=3).each is None


def test_costs_are_kept_beside_the_records_and_the_fleet_reads_them(
    store: LocalStore, registered: Callable[..., Entry]
) -> None:
    entry = registered(store, 1)
    told = {"stages": {}, "total": {"seconds": 3.0, "processor_seconds": 5.0, "gpu_seconds": 0.0, "kwh": 0.25}}
    finish(store, {"recipe": "tickets", "run_key": entry.run_key, "cost": told})
    registered(store, 2)
    (line,) = fleet(store, store)
    assert line.spent == spent(store, "tickets", read(store, "tickets"))
    counted = [each for each in line.spent.values() if each.prompts]
    assert counted == [Spent(counted[0].prompts, counted[0].unknown, counted[0].total)]
    assert counted[0].each == Cost(3.0, 5.0, 0.0, 0.25)
    assert fleet(store)[0].spent == {}
