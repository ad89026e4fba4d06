"""Every recipe on a line: folded from its ledger, sorted, and quickly where there are a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from pipelines.digests import canonical_json
from pipelines.promotion.fleet import Standing, fleet
from pipelines.promotion.ledger import Entry, entry_key, names, promote, register, roll_back
from pipelines.store.local import LocalStore
from promptmint.commands.deciding import status

ROOT = Path(__file__).parents[3]
COST = ("seconds", "processor_seconds", "gpu_seconds", "kwh")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_nothing_was_registered(store: LocalStore) -> None:
    assert names(store) == [] and fleet(store) == []


def test_a_line_says_who_reigns_since_when_who_waits_and_how_the_last_one_fared(
    store: LocalStore, registered: Callable[..., Entry]
) -> None:
    registered(store, 1)
    registered(store, 2)
    promote(store, "tickets", 1, who="ann", why="", now=NOON)
    promote(store, "tickets", 2, who="ann", why="")
    back = roll_back(store, "tickets", who="bob", why="slow")
    registered(store, 3)
    last = registered(store, 4, "refused")
    other = register(store, "mail", 1, prompt_digest="x", verdict="inconclusive", run_key="r", who="flow", why="")
    assert fleet(store) == [
        Standing("mail", None, None, None, "inconclusive", other.at),
        Standing("tickets", 1, back.at, 3, "refused", last.at),
    ]


def test_a_damaged_ledger_hides_no_other(
    store: LocalStore,
    registered: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registered(store, 1)
    registered(store, 2)
    register(store, "mail", 1, prompt_digest="x", verdict="passed", run_key="r", who="flow", why="")
    store.delete(entry_key("tickets", 1))
    mail, tickets = fleet(store)
    assert (mail.challenger, mail.trouble) == (1, None)
    assert tickets.last_verdict is None and "The ledger of 'tickets' has a gap" in str(tickets.trouble)
    monkeypatch.setenv("PROMPTMINT_LEDGER", store.uri)
    with pytest.raises(typer.Exit) as ended:
        status()
    shown = capsys.readouterr().out
    assert ended.value.exit_code == 10 and "mail" in shown and "has a gap" in shown


def test_nothing_is_asked_for_that_a_listing_has_told(tmp_path: Path) -> None:
    """A bucket answers each request late: one listing of ledgers, one of costs, and what is there."""
    asked: Counter[str] = Counter()

    class Watched(LocalStore):
        def keys(self, prefix: str) -> list[str]:
            asked[prefix] += 1
            return super().keys(prefix)

        def read(self, key: str) -> bytes:
            asked[key] += 1
            return super().read(key)

    several(tmp_path, recipes=20)
    store = Watched(tmp_path)
    store.write("costs/recipe-0007/run-1.json", canonical_json({"total": dict.fromkeys(COST, 1.0)}))
    assert fleet(store, store)[7].spent["promoted"].prompts == 1
    entries = [entry_key(f"recipe-{number:04d}", sequence) for number in range(20) for sequence in range(1, 5)]
    assert asked == Counter(["ledger/", "costs/", "costs/recipe-0007/run-1.json", *entries])


def several(folder: Path, recipes: int) -> None:
    """So many recipes of four entries each, written without waiting for the disk as a store does."""
    for number in range(recipes):
        name, entries = f"recipe-{number:04d}", list[Entry]()
        for sequence, action in enumerate(("registered", "promoted", "registered", "registered"), 1):
            entry = Entry(
                sequence=sequence, name=name, action=action, version=max(1, sequence - 1), prompt_digest="0" * 64,
                verdict="passed", run_key=f"run-{sequence}", who="flow", why="scored", at=NOON.isoformat(),
                previous_digest=entries[-1].digest if entries else None,
            )  # fmt: skip
            entries.append(entry)
            path = folder / entry_key(name, sequence)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(canonical_json(entry.model_dump(mode="json")))


def test_a_thousand_recipes_are_listed_while_a_person_waits(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """The whole command, Python's own start included: two seconds of a processor are promised, and taken whole here."""
    several(tmp_path / "store", recipes=1000)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROMPTMINT_STORE": f"file://{tmp_path}/store"}
    with (tmp_path / "shown").open("wb") as shown:
        command = [sys.executable, "-m", "promptmint.cli", "status", "--json"]
        process = subprocess.Popen(command, env=environment, stdout=shown)
        _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    seconds = usage.ru_utime + usage.ru_stime
    figure(f"status of 1,000 recipes: {seconds:.2f} s of a processor (2 are promised)")
    assert process.returncode == 0 and seconds < 2
    recipes = json.loads((tmp_path / "shown").read_bytes())["recipes"]
    assert [each["name"] for each in recipes] == [f"recipe-{number:04d}" for number in range(1000)]
    nothing = {"prompts": 0, "unknown": 0, "total": dict.fromkeys(COST, 0.0)}
    spent = {"promoted": {**nothing, "unknown": 1}, "refused": nothing, "other": {**nothing, "unknown": 2}}
    assert recipes[7] == {
        "spent": spent, "name": "recipe-0007", "champion": 1, "champion_since": NOON.isoformat(), "challenger": 3,
        "last_verdict": "passed", "last_registered": NOON.isoformat(), "trouble": None,
    }  # fmt: skip
