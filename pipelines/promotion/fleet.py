"""The fleet: how every recipe stands, a line each, folded from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipelines.errors import LedgerError
from pipelines.promotion.ledger import LEDGERS, Entry, read, state
from pipelines.promotion.spending import Spent, spending
from pipelines.runs import COSTS, cost, cost_key
from pipelines.store.store import Store, by_name

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

    With `runs`, the store that has the records of runs, also what their prompts cost. All ledgers are found by one
    listing, all costs by another; what is there is read, and nothing else is asked for.
    """
    listed = by_name(ledgers, LEDGERS)
    costs = by_name(runs, COSTS) if runs else {}

    def line(name: str) -> Standing:
        try:
            entries = read(ledgers, name, listed[name])
        except LedgerError as error:
            return Standing(name, None, None, None, None, None, trouble=str(error))
        found = standing(name, entries)
        return replace(found, spent=spent(runs, name, entries, costs.get(name, ()))) if runs else found

    with ThreadPoolExecutor(AT_ONCE) as readers:
        return list(readers.map(line, listed))


def spent(runs: Store, name: str, entries: Sequence[Entry], keys: Sequence[str] | None = None) -> dict[str, Spent]:
    """What a recipe's prompts cost, by kind. `keys` are those of its costs, where a listing has told them."""
    return spending(entries, lambda run: cost(runs, name, run) if keys is None or cost_key(name, run) in keys else None)


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
