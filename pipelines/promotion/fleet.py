"""The fleet: how every recipe stands, a line each, folded from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.promotion.ledger import Entry, names, read, state
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


def fleet(store: Store) -> list[Standing]:
    """Every recipe in the ledger, sorted by name.

    Raises:
        LedgerError: a ledger is damaged; the message says which.
    """
    known = names(store)
    with ThreadPoolExecutor(AT_ONCE) as readers:
        return [
            standing(name, entries)
            for name, entries in zip(known, readers.map(lambda n: read(store, n), known), strict=True)
        ]


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
