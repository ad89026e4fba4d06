"""What a recipe's prompts have cost: those that became champion, those that were refused, and all others.

A prompt's cost is that of the run that registered it: the data checked, its training, what of the baselines was not
kept from earlier runs, and the scoring. Runs that ended before there was a prompt are not counted, nor what an
interrupted run had spent before it was run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.costs import Cost
from pipelines.promotion.ledger import Entry, state

KINDS = {"promoted": "A promoted prompt", "refused": "A refused prompt", "other": "Any other prompt"}


@dataclass(frozen=True)
class Spent:
    """What some prompts cost together."""

    prompts: int = 0  # whose cost is known
    unknown: int = 0  # registered by a promptmint that did not count
    total: Cost = field(default_factory=Cost)

    @property
    def each(self) -> Cost | None:
        """The mean; None where no cost is known."""
        return self.total.shared_by(self.prompts) if self.prompts else None

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.prompts + other.prompts, self.unknown + other.unknown, self.total + other.total)


def spending(entries: Sequence[Entry], cost_of: Callable[[str], Cost | None]) -> dict[str, Spent]:
    """`{kind: what its prompts cost}` over a ledger's whole history, one of `KINDS` for each registered version.

    `cost_of` gives what the run with a key cost, or None where nobody knows. A version that was ever champion counts as
    promoted, whatever its verdict; one that waits for a decision or was inconclusive is among the others.
    """
    reigned = set(state(entries).history)
    found = {kind: Spent() for kind in KINDS}
    for entry in entries:
        if entry.action == "registered":
            kind = "promoted" if entry.version in reigned else "refused" if entry.verdict == "refused" else "other"
            cost = cost_of(entry.run_key)
            found[kind] += Spent(unknown=1) if cost is None else Spent(1, 0, cost)
    return found


def read(told: Mapping[str, Any]) -> Spent:
    """What some prompts cost, from its plain JSON."""
    return Spent(told["prompts"], told["unknown"], Cost(**told["total"]))
