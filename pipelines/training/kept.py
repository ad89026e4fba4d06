"""Baselines' weights kept from run to run: scored on every new test split, tuned anew only where there is a reason.

A run's record says of each baseline where its weights come from:

    how         "trained" in this run; "recalled", tuned before on the very same data; "kept", tuned on other data
    why         why earlier weights were not kept, where the recipe keeps any and there are some
    run         the key of the run that tuned them
    trained_at  when, ISO 8601 in UTC: the training, however often the weights were kept since; None where an older
                promptmint tuned them and nobody wrote it down
    age_days    since then
    base, asked     digests of the base, and of all else that decides such a training beside the data
    splits      the trees of the examples they were tuned and validated on

See docs/decisions/0032-what-a-run-takes-over-is-named.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.data.drift import NAMES
from pipelines.data.seen import seen_again, seen_by
from pipelines.digests import digest_json
from pipelines.errors import NotInStore
from pipelines.recipe import Recipe
from pipelines.runs import recorded
from pipelines.store.store import Store
from pipelines.store.trees import tree_key
from pipelines.training.tuning import STAGE, trained_baselines

DAY = timedelta(days=1)

Result = dict[str, Any]  # what `tuning.tune_jobs` gives of one method
Lineage = dict[str, Any]  # where one baseline's weights come from, as above
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """What of earlier runs stands in for trainings of this one, method by method."""

    results: dict[str, Result] = field(default_factory=dict)
    lineage: dict[str, Lineage] = field(default_factory=dict)  # of the same methods, as their run wrote it down
    why_not: dict[str, str] = field(default_factory=dict)  # of the other methods that have earlier weights


def keep(
    store: Store, recipe: Recipe, base: str, test: str, refresh: Sequence[str], cache: Path, now: datetime
) -> Kept:
    """The earlier weights that a run may score in the place of new ones; none where the recipe keeps none.

    Args:
        store: holds the records of earlier runs, and what they made.
        recipe: as it is trained, the choice of a sweep made.
        base: its digest.
        test: the tree of the test split.
        refresh: why no earlier weights may be kept, whatever their age: what has drifted, for instance.
        cache: for the splits.
        now: what ages are counted to.
    """
    kept = Kept()
    if recipe.baselines.keep_days is None:
        return kept
    records = recorded(store, recipe.name)
    for method in trained_baselines(recipe):
        earlier = [pair for record in records if (pair := _of(record, method))]
        if not earlier:
            continue
        fitting = [pair for pair in earlier if not _misfit(recipe, method, base, pair[0], now)]
        lineage, result = max(fitting or earlier[-1:], key=lambda pair: pair[0]["trained_at"] or "")
        why = _misfit(recipe, method, base, lineage, now) or _too_old(recipe.baselines.keep_days, lineage, now)
        why = why or "; ".join(refresh) or _unusable(store, lineage, result, test, cache)
        if why:
            kept.why_not[method] = why
        else:
            kept.results[method], kept.lineage[method] = result, lineage
    return kept


def lineages(
    recipe: Recipe, base: str, run: str, splits: Mapping[str, str], kept: Kept, trained: Mapping[str, Result],
    now: datetime,
) -> dict[str, Lineage]:  # fmt: skip
    """Where the weights of every baseline of a run come from.

    Args:
        recipe: as it was trained; `base` is the base's digest, `run` the run's key.
        splits: the trees of the run's splits.
        kept: what could be kept.
        trained: what the run's baselines are: tuned, recalled or kept.
        now: what ages are counted to.
    """
    found = {}
    for method in trained_baselines(recipe):
        result = trained[method]
        if result.get("kept"):
            lineage = {**kept.lineage[method], "how": "kept", "why": None}
        else:
            lineage = {
                "how": "recalled" if result["reused"] else "trained",
                "why": None if result["reused"] else kept.why_not.get(method),
                "run": run, "trained_at": result.get("trained_at"), "base": base, "asked": asked(recipe, method),
                "splits": [splits[split] for split in ("train", "validation")],
            }  # fmt: skip
        age = _age(lineage, now)
        found[method] = {**lineage, "age_days": None if age is None else round(age / DAY, 2)}
    return found


def asked(recipe: Recipe, method: str) -> str:
    """The digest of what decides a baseline's weights beside base and rows."""
    parts = recipe.model_dump(mode="json", include={"seed", "template", "head", "training"})
    read = recipe.data.model_dump(mode="json", include={"text", "pair", "label", "labels", "target"})
    settings = getattr(recipe.baselines, method).model_dump(mode="json")
    return digest_json({**parts, "data": read, "method": method, "settings": settings, "version": STAGE.version})


def drifted(found: Record | None) -> list[str]:
    """Why the data's drift keeps no weights: what moved, where the recipe says `drift.then = "refresh"`."""
    if not found or found["then"] != "refresh":
        return []
    return [f"{NAMES[name]} moved from the champion's data" for name in found["moved"]]


def _of(record: Record, method: str) -> tuple[Lineage, Result] | None:
    """A baseline's lineage and result in an earlier run, where it wrote them down."""
    lineage, result = (record.get("baselines") or {}).get(method), (record.get("trained") or {}).get(method)
    return (lineage, result) if lineage and result else None


def _misfit(recipe: Recipe, method: str, base: str, lineage: Lineage, now: datetime) -> str:
    """Why weights are not those that this run asks for; empty where they are."""
    age = _age(lineage, now)
    if lineage["base"] != base:
        return "the base is another one"
    if lineage["asked"] != asked(recipe, method):
        return "its settings, or what all methods share, are others"
    if age is None:
        return "nobody wrote down when the earlier weights were trained"
    if age < timedelta(0):
        return f"the earlier weights claim to be trained at {lineage['trained_at']}, which is yet to come"
    return ""


def _too_old(days: float, lineage: Lineage, now: datetime) -> str:
    age = _age(lineage, now)
    if age is None or age <= days * DAY:
        return ""
    return f"the earlier weights are {age / DAY:.1f} days old, and baselines.keep_days = {days:g}"


def _unusable(store: Store, lineage: Lineage, result: Result, test: str, cache: Path) -> str:
    """Why weights cannot judge on a test split: lost, or tuned on some of it."""
    if not store.has(tree_key(result["tree"])):
        return "the store has lost the earlier weights"
    try:
        again = seen_again(store, seen_by(store, lineage["splits"], cache), test, cache)
    except NotInStore:
        return "the store has lost what the earlier weights were trained on"
    if again:
        return f"{again:,} of the test examples are among those that the earlier weights were trained or validated on"
    return ""


def _age(lineage: Lineage, now: datetime) -> timedelta | None:
    return now - datetime.fromisoformat(lineage["trained_at"]) if lineage["trained_at"] else None
