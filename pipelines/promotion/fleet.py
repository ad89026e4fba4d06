"""The fleet: how every recipe stands, a line each, folded from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipelines.errors import LedgerError
from pipelines.promotion.ledger import Entry, names, read, state
from pipelines.promotion.spending import Spent, spending
from pipelines.runs import cost
from pipelines.store.store import Store

AT_ONCE = 16  # ledgers read at the same time: a bucket answers each request late, but many together


@dataclass(frozen=True)
class Standing:
    """One recipe's line. Times are ISO 8601 in UTC."""

    name: str
    champion: int | None
    champion_since: str | None  # when the last promotion or roll back made it champion
    challenger: int | None
    last_verdict: str | None  # of the version that was registered last
    last_registered: str | None
    trouble: str | None = None  # why its ledger cannot be read; nothing else is known then
    spent: dict[str, Spent] = field(default_factory=dict)  # by kind of prompt, where it was asked for


def fleet(ledgers: Store, runs: Store | None = None) -> list[Standing]:
    """Every recipe in the ledger, sorted by name. One whose ledger is damaged hides none of the others.

    With `runs`, the store that has the records of runs, also what their prompts cost.
    """
    with ThreadPoolExecutor(AT_ONCE) as readers:
        return list(readers.map(lambda name: _standing(ledgers, runs, name), names(ledgers)))


def spent(runs: Store, name: str, entries: Sequence[Entry]) -> dict[str, Spent]:
    """What a recipe's prompts cost, by kind."""
    return spending(entries, lambda run_key: cost(runs, name, run_key))


def standing(name: str, entries: Sequence[Entry]) -> Standing:
    """How a recipe stands after these entries."""
    now = state(entries)
    crowned = next((entry for entry in reversed(entries) if entry.action != "registered"), None)
    registered = next((entry for entry in reversed(entries) if entry.action == "registered"), None)
    return Standing(
        name,
        champion=now.champion,
        champion_since=crowned.at if crowned else None,
        challenger=now.challenger,
        last_verdict=registered.verdict if registered else None,
        last_registered=registered.at if registered else None,
    )


def _standing(ledgers: Store, runs: Store | None, name: str) -> Standing:
    try:
        entries = read(ledgers, name)
        found = standing(name, entries)
        return found if runs is None else replace(found, spent=spent(runs, name, entries))
    except LedgerError as error:
        return Standing(name, None, None, None, None, None, trouble=str(error))
