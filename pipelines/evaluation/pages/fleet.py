"""The page of all recipes: who is champion, since when, how the last run ended, and which of them want a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.costs import total_of
from pipelines.errors import LedgerError
from pipelines.evaluation.measured import headline
from pipelines.evaluation.pages import words
from pipelines.evaluation.pages.render import render
from pipelines.promotion import ledger
from pipelines.promotion.fleet import AT_ONCE, standing
from pipelines.promotion.spending import KINDS, Spent, spending
from pipelines.runs import RUNS, recorded
from pipelines.store.store import Store, by_name

NAMED = 30  # recipes that the top of the page names for one reason; how many more there are is said


@dataclass(frozen=True)
class Line:
    """What the page says of one recipe."""

    name: str
    champion: int | None
    accuracy: float | None  # of the champion, in its own run; of texts, the recipe's metric
    since: str | None  # when it became champion; ISO 8601, UTC
    challenger: int | None
    runs: int
    verdict: str | None  # of the last run
    reason: str | None
    at: str | None  # of the last run; ISO 8601, UTC
    trouble: str | None = None  # why its ledger cannot be read
    spent: dict[str, Spent] = field(default_factory=dict)  # what its prompts cost, by kind

    @property
    def wants(self) -> str | None:
        """Why a person should look at it; None: all is well."""
        if self.trouble:
            return "its ledger cannot be read"
        if self.verdict == "refused":
            return "the last run was refused"
        if self.challenger is not None:
            return "a challenger waits for a decision"
        if self.verdict == "inconclusive":
            return "the last run was inconclusive"
        return "there is no champion" if self.champion is None else None


def survey(store: Store, ledgers: Store) -> list[Line]:
    """Every recipe that has a run in the store or an entry in the ledger, by name. Reads each run's record once."""
    runs, entries = by_name(store, RUNS), by_name(ledgers, ledger.LEDGERS)

    def line(name: str) -> Line:
        return _line(store, ledgers, name, runs.get(name, ()), entries.get(name, ()))

    with ThreadPoolExecutor(AT_ONCE) as readers:
        return list(readers.map(line, sorted({*runs, *entries})))


def fleet_page(lines: Sequence[Line], now: datetime) -> str:
    """One self-contained page of HTML about all recipes; `now` is what ages are counted to."""
    verdicts = Counter(each.verdict for each in lines)
    return render(
        "fleet.html",
        rows=[_row(each, now) for each in lines],
        tiles=[
            {"name": "Recipes", "figure": len(lines), "ink": ""},
            {"name": "With a champion", "figure": sum(each.champion is not None for each in lines), "ink": ""},
            *({"name": f"Last run {word}", "figure": verdicts[word], "ink": word} for word in words.VERDICTS),
        ],
        wanting=_wanting(lines),
        costs=_costs(lines),
        now=now.isoformat(),
    )


def _line(store: Store, ledgers: Store, name: str, run_keys: Sequence[str], entry_keys: Sequence[str]) -> Line:
    records = recorded(store, name, run_keys)
    last = records[-1] if records else {}
    told: dict[str, Any] = {"name": name, "runs": len(records)}
    told |= {key: last.get(key) for key in ("verdict", "reason", "at")}
    try:
        entries = ledger.read(ledgers, name, entry_keys)
    except LedgerError as error:
        return Line(**told, champion=None, accuracy=None, since=None, challenger=None, trouble=str(error))
    now = standing(name, entries)
    crowned = next((entry for entry in reversed(entries) if entry.action != "registered"), None)
    record = next((each for each in records if crowned and each["run_key"] == crowned.run_key), {})
    prompt = (record.get("scores") or {}).get("prompt") or {}
    # A record of before runs had a time: when its version was registered will do.
    registered = {entry.run_key: entry.at for entry in entries if entry.action == "registered"}
    told["at"] = told["at"] or registered.get(last.get("run_key", ""))
    return Line(
        **told,
        champion=now.champion,
        accuracy=headline(prompt),
        since=now.champion_since,
        challenger=now.challenger,
        spent=spending(entries, {each["run_key"]: total_of(each.get("cost")) for each in records}.get),
    )


def _wanting(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """`{why, names, more}` for every reason to look at a recipe, the reason with the fewest recipes first."""
    reasons = Counter(each.wants for each in lines if each.wants)
    found = []
    for why, number in sorted(reasons.items(), key=lambda pair: pair[1]):
        named = [each.name for each in lines if each.wants == why][:NAMED]
        found.append({"why": why, "number": number, "names": named, "more": number - len(named)})
    return found


def _costs(lines: Sequence[Line]) -> list[str]:
    """What the prompts of all recipes cost, a sentence per kind of which any cost is known."""
    found = []
    for kind in KINDS:
        whole = sum((line.spent[kind] for line in lines if kind in line.spent), Spent())
        if whole.each:
            found.append(f"{KINDS[kind]}: {whole.each} each, the mean of {whole.prompts:,}.")
    return found


def _row(each: Line, now: datetime) -> dict[str, Any]:
    why = each.trouble or (each.reason or words.NOTHING).removeprefix(f"{each.verdict}: ")
    return {
        "line": each,
        "why": why,
        "age": words.age(now - datetime.fromisoformat(each.since)) if each.since else None,
        "promoted": _each(each, "promoted"),
        "refused": _each(each, "refused"),
    }


def _each(line: Line, kind: str) -> str:
    """What a prompt of this kind cost on average: `12 min, 0.04 kWh`."""
    cost = line.spent[kind].each if kind in line.spent else None
    return f"{words.duration(cost.seconds)}, {cost.kwh:.2g} kWh" if cost else words.NOTHING
