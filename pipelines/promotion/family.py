"""A family: recipes that are retrained together, so that their promotions are decided together.

Each gate errs at its own level. Where twenty recipes retrain in a night and each may err in 5 % of the cases, one
promotion a night is due to luck. So what passed in a family waits, and is judged with the others: by the p-value of its
weakest claim, corrected for how many recipes the family has. It need not wait for all of them: a recipe with nothing to
show counts as one whose p-value is 1, which only makes the others' case harder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipelines.errors import RecipeError, listed
from pipelines.promotion import ledger
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finished
from pipelines.store.store import Store

Control = Literal["fdr", "fwer"]


@dataclass(frozen=True)
class Member:
    """One recipe of a family, and what was decided of the version that waits."""

    name: str
    version: int | None  # that passed and waits; None: nothing does
    p_value: float  # of the weakest claim that its gates proved
    adjusted: float  # the same, corrected for the size of the family
    promoted: bool
    sequence: int  # of the ledger's entry that registered the version; 0 where nothing waits
    why: str


@dataclass(frozen=True)
class Decision:
    """What a family's members amount to, in the order of their names."""

    family: str
    control: Control
    level: float
    members: tuple[Member, ...]


def members_of(family: str, recipes: Iterable[Recipe]) -> list[Recipe]:
    """The recipes whose `promotion.family` this is.

    Raises:
        RecipeError: there are none.
    """
    every = list(recipes)
    if not (found := [recipe for recipe in every if recipe.promotion.family == family]):
        known = listed({recipe.promotion.family for recipe in every if recipe.promotion.family})
        raise RecipeError(f"No recipe says promotion.family = {family!r}. Families of the known recipes: {known}.")
    return found


def load_family(family: str, known: Mapping[str, Any]) -> list[Recipe]:
    """The recipes of a family among the known ones, `{name: file}`."""
    return members_of(family, (load_recipe(path) for path in known.values()))


def decide(store: Store, ledgers: Store, family: str, recipes: Sequence[Recipe]) -> Decision:
    """Which of the versions that wait in a family may become champion.

    The strictest member speaks for all: the level is 1 - the largest `gates.confidence`, and family-wise error is
    controlled as soon as one recipe asks for it.

    Args:
        store: holds the records of the runs.
        ledgers: the store that holds the ledger.
        family: its name.
        recipes: every one of its members; each counts, whether or not it has anything to show.
    """
    control: Control = "fwer" if any(recipe.promotion.control == "fwer" for recipe in recipes) else "fdr"
    level = 1 - max(recipe.gates.confidence for recipe in recipes)
    waiting = [_waiting(store, ledgers, recipe.name) for recipe in recipes]
    corrected = adjusted([p for _, _, p, _ in waiting], control)
    members = []
    for recipe, (version, sequence, p_value, why), corrected_p in zip(recipes, waiting, corrected, strict=True):
        chosen = version is not None and corrected_p <= level
        if not why:
            how = "Benjamini-Hochberg" if control == "fdr" else "Holm"
            verdict = "proven" if chosen else "not proven"
            why = (
                f"{verdict} among the {len(recipes)} of the family {family!r} at {100 * level:.3g} %: the weakest of "
                f"its claims has p = {p_value:.2g}, {corrected_p:.2g} after {how}"
            )
        members.append(Member(recipe.name, version, p_value, corrected_p, chosen, sequence, why))
    return Decision(family, control, level, tuple(sorted(members, key=lambda member: member.name)))


def adjusted(p_values: Sequence[float], control: Control) -> list[float]:
    """The p-values corrected for their number: what is at most the level is proven, together with the others.

    `fdr`: among all that are proven the expected share of false ones is at most the level. Holds where the p-values are
    independent, or rise and fall together. `fwer`: the chance of a single false one is at most the level, however the
    p-values depend on each other.

    Source: Benjamini & Hochberg 1995, "Controlling the false discovery rate"; Holm 1979, "A simple sequentially
    rejective multiple test procedure".
    """
    values = np.asarray(p_values, float)
    m, order = len(values), np.argsort(values, kind="stable")
    ranks = np.arange(1, m + 1)
    if control == "fdr":
        inflated = np.minimum.accumulate((values[order] * m / ranks)[::-1])[::-1]
    else:
        inflated = np.maximum.accumulate(values[order] * (m + 1 - ranks))
    found = np.empty(m)
    found[order] = np.minimum(inflated, 1.0)
    return [float(p) for p in found]


def weakest_claim(record: Mapping[str, Any]) -> float | None:
    """The largest p-value of what a run's gates claim: all of them are true, or that likely this looked so by chance.

    None where nothing was claimed, or the record is older than these p-values.
    """
    claims = [gate.get("claim_p_value") for gate in record.get("gates") or []]
    return max((p for p in claims if p is not None), default=None)


def _waiting(store: Store, ledgers: Store, name: str) -> tuple[int | None, int, float, str]:
    """The version that waits, the entry that registered it, its p-value, and why it cannot be judged, if it cannot."""
    entries = ledger.read(ledgers, name)
    version = ledger.state(entries).challenger
    if version is None:
        return None, 0, 1.0, "nothing waits"
    entry = next(entry for entry in entries if entry.version == version)
    record = finished(store, name, entry.run_key)
    p_value = weakest_claim(record) if record else None
    if p_value is None:
        why = "its run claimed nothing that can be told from chance, or is not known: a person decides"
        return version, entry.sequence, 1.0, why
    return version, entry.sequence, p_value, ""
