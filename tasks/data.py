"""The data: what arrived, kept as it was, and what the checks say of it."""

from __future__ import annotations

from typing import Any

from prefect import task

from pipelines.data import snapshot as snapshots
from pipelines.data import validate as validation
from pipelines.memo import once
from pipelines.recipe import Recipe
from pipelines.settings import cache_folder
from pipelines.store.opening import the_store
from tasks.retrying import RETRYING


@task(task_run_name="snapshot", **RETRYING)
def snapshot(recipe: Recipe) -> str:
    """The digest of an immutable copy of the recipe's data."""
    return snapshots.snapshot(the_store(), recipe.data, recipe.folder).digest


@task(task_run_name="validate", **RETRYING)
def validate(recipe: Recipe, data: str) -> dict[str, Any]:
    """The report on a snapshot: quarantine, expectations, splits, and whether it may be learnt from."""
    store = the_store()
    inputs = {"snapshot": data, "data": recipe.data.model_dump(mode="json", exclude={"path"})}
    return once(
        store, validation.STAGE, inputs, lambda: validation.validate(store, data, recipe.data, cache_folder())
    ).value
