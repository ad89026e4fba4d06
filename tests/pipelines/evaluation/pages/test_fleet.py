"""The page of all recipes, from a store and a ledger with runs in them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipelines.costs import Cost
from pipelines.evaluation.pages.fleet import NAMED, Line, fleet_page, survey
from pipelines.promotion import ledger
from pipelines.promotion.spending import Spent
from pipelines.runs import finish
from pipelines.store.local import LocalStore

Read = Callable[[str], Any]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def ran(
    store: LocalStore, name: str, key: str, verdict: str, day: int, version: int | None = None, **more: Any
) -> None:
    """A run that ended on a day of November, registered where it has a version."""
    at = datetime(2026, 11, day, 8, tzinfo=UTC)
    scores = {"prompt": {"accuracy": 0.8 + day / 1000} if version else None}
    record: dict[str, Any] = {"recipe": name, "run_key": key * 64, "verdict": verdict, "reason": f"{verdict}: <{day}>"}
    finish(store, record | {"version": version, "scores": scores, "at": at.isoformat()} | more)
    if version:
        ledger.register(
            store, name, version, prompt_digest="b" * 64, verdict=verdict, run_key=key * 64, who="promptmint", why="-",
            now=at,
        )  # fmt: skip


def test_a_survey_tells_champion_age_and_last_run(store: LocalStore, read: Read) -> None:
    cost = {"total": {"seconds": 60, "processor_seconds": 90, "gpu_seconds": 0, "kwh": 0.5}}
    ran(store, "tickets", "a", "passed", 1, version=1, cost=cost)
    ledger.promote(store, "tickets", 1, who="ada", why="first", now=datetime(2026, 11, 2, tzinfo=UTC))
    ran(store, "tickets", "c", "passed", 10, version=2)
    ran(store, "tickets", "b", "refused", 20)
    ran(store, "letters", "a", "passed", 3, version=1)
    letters, tickets = survey(store, store)
    assert tickets == Line(
        name="tickets", champion=1, accuracy=0.801, since="2026-11-02T00:00:00.000000+00:00", challenger=2, runs=3,
        verdict="refused", reason="refused: <20>", at="2026-11-20T08:00:00+00:00",
        spent={"promoted": Spent(1, 0, Cost(60, 90, 0, 0.5)), "refused": Spent(), "other": Spent(unknown=1)},
    )  # fmt: skip
    assert tickets.wants == "the last run was refused" and letters.wants == "a challenger waits for a decision"

    page = read(fleet_page([letters, tickets], NOW))
    assert "tickets version 1 , 2 waits 80.1 % 19 days refused 2026-11-20 08:00 60 s, 0.5 kWh – <20>" in page.text
    assert "letters none , 1 waits – – passed 2026-11-03 08:00 – – <3>" in page.text
    assert "Recipes 2 With a champion 1 Last run passed 1 Last run inconclusive 0 Last run refused 1" in page.text


def test_a_ledger_that_cannot_be_read_is_one_row_and_stops_nothing(store: LocalStore) -> None:
    ran(store, "tickets", "a", "passed", 1, version=1)
    ran(store, "letters", "a", "passed", 1, version=1)
    store.write(ledger.entry_key("letters", 1), b"{}")
    letters, tickets = survey(store, store)
    assert letters.wants == "its ledger cannot be read" and "cannot be read" in str(letters.trouble)
    assert tickets.trouble is None and tickets.challenger == 1


def test_a_record_of_before_is_dated_by_its_registration(store: LocalStore) -> None:
    ran(store, "tickets", "a", "passed", 5, version=1)
    finish(store, {"recipe": "tickets", "run_key": "a" * 64, "verdict": "passed", "reason": "-", "version": 1})
    (tickets,) = survey(store, store)
    assert tickets.at == "2026-11-05T08:00:00.000000+00:00"


def test_two_hundred_recipes_are_readable(read: Read) -> None:
    standings = [
        Line(f"recipe-{number:03d}", 1, 0.9, "2026-10-01T00:00:00+00:00", None, 5,
                 "refused" if number % 4 == 0 else "passed", "because", "2026-11-20T00:00:00+00:00")
        for number in range(200)
    ]  # fmt: skip
    page = read(fleet_page(standings, NOW))
    assert len([a for name, a in page.elements if name == "tr" and a.get("id")]) == 200
    assert "The last run was refused: 50 recipe-000 , recipe-004" in page.text
    assert len([a for name, a in page.elements if name == "a"]) == NAMED and "and 20 more, below" in page.text
    assert len(page.source) < 200_000


def test_no_recipe_at_all_says_what_to_do(store: LocalStore, read: Read) -> None:
    assert survey(store, store) == []
    assert "No recipe was run yet. promptmint run RECIPE.toml" in read(fleet_page([], NOW)).text
