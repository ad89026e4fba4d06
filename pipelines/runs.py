"""One run of a recipe: the key that makes two runs the same one, and the record of how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.bases.pin import known_base
from pipelines.costs import Cost, total_of
from pipelines.data.snapshot import source_digest
from pipelines.digests import canonical_json, digest_json
from pipelines.errors import NotInStore
from pipelines.recipe import Recipe
from pipelines.store.store import Store, by_name

RUNS, COSTS = "runs/", "costs/"
METHODS = ("prompt", "lora", "adapters", "full", "head_only", "zero_shot")
VERSION = 1  # raise it when a run of equal inputs would end differently


def run_key(recipe: Recipe, base_digest: str, data_digest: str) -> str:
    """What a run is named by: the recipe, the base and the data, each by its digest."""
    return digest_json({"version": VERSION, "recipe": recipe.digest, "base": base_digest, "data": data_digest})


def new_record(recipe: Recipe, key: str, base_digest: str, data_digest: str) -> dict[str, Any]:
    """The record of a run that has just begun: nothing is decided, everything is named."""
    return {
        "recipe": recipe.name,
        "description": recipe.description,
        "run_key": key,
        "verdict": None,
        "reason": None,
        "version": None,
        "prompt_digest": None,
        "base_digest": base_digest,
        "data_digest": data_digest,
        "recipe_digest": recipe.digest,
        "scores": dict.fromkeys(METHODS),
        "gates": [],
        "seconds": {},
        "at": None,
        "number": None,
        "score_digests": {},
        "unchanged": False,
        "artifact": None,
        "labels": list(recipe.data.labels),
        "settings": recipe.model_dump(mode="json", exclude={"description"}),
    }


def finished(store: Store, name: str, key: str) -> dict[str, Any] | None:
    """The record of a recipe's earlier run with this key, or None."""
    try:
        record: dict[str, Any] = json.loads(store.read(_record_key(name, key)))
    except NotInStore:
        return None
    return record


def names(store: Store) -> list[str]:
    """The recipes that have a run in the store."""
    return list(by_name(store, RUNS))


def recorded(store: Store, name: str, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The record of every run of a recipe, the last one last: by their number, which no clock can disturb.

    Those of before runs had a number come first, by their time; of these, those of before runs had a time.
    `keys` are those of the records, where a listing of all runs has told them; else they are listed.
    """
    keys = store.keys(f"{RUNS}{name}/") if keys is None else keys
    records: list[dict[str, Any]] = [json.loads(store.read(key)) for key in keys]
    return sorted(
        records, key=lambda record: (record.get("number") or 0, record.get("at") or "", record.get("version") or 0)
    )


def next_number(store: Store, name: str) -> int:
    """The number of a recipe's run that ends now, from 1; runs of one recipe follow each other."""
    return len(store.keys(f"{RUNS}{name}/")) + 1


def unchanged(store: Store, recipe: Recipe, data: str | None = None) -> dict[str, Any] | None:
    """The earlier run's record where recipe, base and data are what they were; asks no server and reads no table.

    `data` is the digest of the snapshot where it is known already.
    """
    base = known_base(store, recipe.base)
    if base and data is None:
        data = source_digest(recipe.data, recipe.folder)
    if base is None or data is None:
        return None
    record = finished(store, recipe.name, run_key(recipe, base.digest, data))
    return record and {**record, "unchanged": True}


def finish(store: Store, record: Mapping[str, Any]) -> None:
    """Write the last word on a run; from now on the same inputs make an `unchanged` one.

    What it cost is also written apart: to sum it over a thousand recipes, nobody reads a thousand long records.
    """
    if cost := record.get("cost"):
        store.write(cost_key(record["recipe"], record["run_key"]), canonical_json(cost))
    store.write(_record_key(record["recipe"], record["run_key"]), canonical_json(record))


def cost(store: Store, name: str, key: str) -> Cost | None:
    """What the run with this key cost; None where nobody has counted."""
    try:
        return total_of(json.loads(store.read(cost_key(name, key))))
    except NotInStore:
        return None


def cost_key(name: str, key: str) -> str:
    """Where the cost of a run lies in the store."""
    return f"{COSTS}{name}/{key}.json"


def _record_key(name: str, key: str) -> str:
    return f"{RUNS}{name}/{key}.json"
