"""The base, pinned and in the store."""

from __future__ import annotations

from prefect import task

from pipelines.bases import pin
from pipelines.bases.pin import PinnedBase
from pipelines.recipe import Recipe
from pipelines.settings import home
from pipelines.store.opening import the_store
from tasks.retrying import RETRYING


@task(task_run_name="pin base", **RETRYING)
def pin_base(recipe: Recipe) -> PinnedBase:
    """The recipe's base, fetched and verified where the store does not hold it yet."""
    return pin.pin_base(the_store(), recipe.base, recipe.folder, home() / "work")
