"""Look whether new data have arrived, and say so: each new snapshot becomes one event, and the event a run."""

from __future__ import annotations

import time

from prefect import flow

from pipelines.errors import DataError, PromptmintError
from pipelines.known import find_recipe, known_recipes
from pipelines.recipe import load_recipe
from pipelines.settings import recipes_folder
from tasks.watching import announce, look, publish_look


@flow(name="watch", persist_result=False)
def watch(recipes: list[str] | None = None, settle_s: float = 10.0) -> dict[str, str]:
    """Look at the data of recipes; what is new becomes an event that the deployment `retrain-on-new-data` waits for.

    Args:
        recipes: Names of recipes. None: every recipe that is known.
        settle_s: Seconds between two looks. Files that differ between them are still being written, and wait for the
            next run.
    """
    names = known_recipes(recipes_folder()) if recipes is None else recipes
    watched = {name: load_recipe(find_recipe(name, recipes_folder())) for name in names}
    said: dict[str, str] = {}
    problems: list[str] = []

    found = {}
    for name, recipe in watched.items():
        try:
            found[name] = look(recipe)
            said[name] = "nothing new"
        except PromptmintError as error:  # the other recipes are looked at all the same
            problems.append(f"{name}: {error}")
    fresh = {name: marks for name, marks in found.items() if marks is not None}
    if fresh:
        time.sleep(settle_s)
    for name, marks in fresh.items():
        try:
            said[name] = announce(watched[name], marks)
        except PromptmintError as error:
            problems.append(f"{name}: {error}")

    publish_look(said)
    if problems:
        raise DataError("\n".join(problems))
    return said
