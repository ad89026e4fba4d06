"""The champion that a run has before it: its version, and the record of the run that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipelines.errors import listed
from pipelines.promotion import ledger
from pipelines.runs import finished
from pipelines.store.store import Store


@dataclass(frozen=True)
class Champion:
    """Who reigns.

    Attributes:
        version: None where nobody does.
        record: of the run that made it; None where nobody reigns, or where the store has lost it.
        sequence: of the ledger's last entry when it was read: a promotion is decided on that.
    """

    version: int | None
    record: dict[str, Any] | None
    sequence: int

    @property
    def lost(self) -> str:
        """What to say where somebody reigns whose record is not there."""
        return f"the store has no record of the champion's run (version {self.version}), so there was no comparison"

    def of_others(self, labels: Sequence[str]) -> str:
        """What to say where it answers other labels than these, in their order; nothing where it does not."""
        if self.record is None or self.record["labels"] == list(labels):
            return ""
        others = listed(self.record["labels"])
        return f"the champion (version {self.version}) answers other labels, {others}, so there was no comparison"


def reigning(store: Store, ledgers: Store, name: str, run_key: str) -> Champion:
    """The champion of a recipe, as a run with this key finds it.

    A run that was interrupted after its own promotion finds the champion before it, as it was then.

    Args:
        store: has the records of runs.
        ledgers: the store that holds the ledger.
        name: of the recipe.
        run_key: of the run that asks.

    Raises:
        LedgerError: the ledger is damaged.
    """
    entries = ledger.read(ledgers, name)
    before = list(takewhile(lambda entry: entry.run_key != run_key or entry.action == "registered", entries))
    version = ledger.state(before).champion
    if version is None:
        return Champion(None, None, len(entries))
    of_champion = next(entry.run_key for entry in entries if entry.version == version)
    return Champion(version, finished(store, name, of_champion), len(entries))
