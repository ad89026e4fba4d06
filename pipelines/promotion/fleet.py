"""The fleet: how every recipe stands, a line each, folded from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.errors import LedgerError
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
    trouble: str | None = None  # why its ledger cannot be read; nothing else is known then


def fleet(store: Store) -> list[Standing]:
    """Every recipe in the ledger, sorted by name. One whose ledger is damaged hides none of the others."""
    with ThreadPoolExecutor(AT_ONCE) as readers:
        return list(readers.map(lambda name: _standing(store, name), names(store)))


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


def _standing(store: Store, name: str) -> Standing:
    try:
        return standing(name, read(store, name))
    except LedgerError as error:
        return Standing(name, None, None, None, None, None, trouble=str(error))
