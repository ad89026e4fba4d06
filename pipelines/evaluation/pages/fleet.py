"""The page of all recipes: who is champion, since when, how the last run ended, and which of them want a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.errors import LedgerError
from pipelines.evaluation.pages import words
from pipelines.evaluation.pages.render import render
from pipelines.promotion import ledger
from pipelines.runs import names, recorded
from pipelines.store.store import Store

NAMED = 30  # recipes that the top of the page names for one reason; how many more there are is said


@dataclass(frozen=True)
class Standing:
    """Where one recipe stands."""

    name: str
    champion: int | None
    accuracy: float | None  # of the champion, in its own run
    since: str | None  # when it became champion; ISO 8601, UTC
    challenger: int | None
    runs: int
    verdict: str | None  # of the last run
    reason: str | None
    at: str | None  # of the last run; ISO 8601, UTC
    trouble: str | None = None  # why its ledger cannot be read

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


def survey(store: Store, ledgers: Store) -> list[Standing]:
    """Every recipe that has a run in the store or an entry in the ledger, by name. Reads each run's record once."""
    known = sorted({*names(store), *ledger.names(ledgers)})
    return [_standing(store, ledgers, name) for name in known]


def fleet_page(standings: Sequence[Standing], now: datetime) -> str:
    """One self-contained page of HTML about all recipes; `now` is what ages are counted to."""
    verdicts = Counter(each.verdict for each in standings)
    return render(
        "fleet.html",
        rows=[_row(each, now) for each in standings],
        tiles=[
            {"name": "Recipes", "figure": len(standings), "ink": ""},
            {"name": "With a champion", "figure": sum(each.champion is not None for each in standings), "ink": ""},
            *({"name": f"Last run {word}", "figure": verdicts[word], "ink": word} for word in words.VERDICTS),
        ],
        wanting=_wanting(standings),
        now=now.isoformat(),
    )


def _standing(store: Store, ledgers: Store, name: str) -> Standing:
    records = recorded(store, name)
    last = records[-1] if records else {}
    told: dict[str, Any] = {"name": name, "runs": len(records)}
    told |= {key: last.get(key) for key in ("verdict", "reason", "at")}
    try:
        entries = ledger.read(ledgers, name)
    except LedgerError as error:
        return Standing(**told, champion=None, accuracy=None, since=None, challenger=None, trouble=str(error))
    state = ledger.state(entries)
    reign = [entry for entry in entries if entry.version == state.champion and entry.action != "registered"]
    record = next((each for each in records if reign and each["run_key"] == reign[-1].run_key), {})
    prompt = (record.get("scores") or {}).get("prompt") or {}
    # A record of before runs had a time: when its version was registered will do.
    registered = {entry.run_key: entry.at for entry in entries if entry.action == "registered"}
    told["at"] = told["at"] or registered.get(last.get("run_key", ""))
    return Standing(
        **told,
        champion=state.champion,
        accuracy=prompt.get("accuracy"),
        since=reign[-1].at if reign else None,
        challenger=state.challenger,
    )


def _wanting(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """`{why, names, more}` for every reason to look at a recipe, the reason with the fewest recipes first."""
    reasons = Counter(each.wants for each in standings if each.wants)
    found = []
    for why, number in sorted(reasons.items(), key=lambda pair: pair[1]):
        named = [each.name for each in standings if each.wants == why][:NAMED]
        found.append({"why": why, "number": number, "names": named, "more": number - len(named)})
    return found


def _row(each: Standing, now: datetime) -> dict[str, Any]:
    why = each.trouble or (each.reason or words.NOTHING).removeprefix(f"{each.verdict}: ")
    return {
        "standing": each,
        "why": why,
        "age": words.age(now - datetime.fromisoformat(each.since)) if each.since else None,
    }
