"""Look whether new data have arrived, and say so: each new snapshot becomes one event, and the event a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

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
        recipes: Names of recipes, as their files in the folder `recipes/` give them. None: all that are there.
        settle_s: Seconds between two looks. Files that differ between them are still being written, and wait for the
            next run.
    """
    names = known_recipes(recipes_folder()) if recipes is None else recipes
    watched = {name: load_recipe(find_recipe(name, recipes_folder())) for name in names}
    said: dict[str, str] = {}
    failures: list[PromptmintError] = []

    fresh: dict[str, dict[str, str]] = {}
    for name, recipe in watched.items():
        with _noting(name, said, failures):
            match look(recipe):
                case str(nothing_new):
                    said[name] = nothing_new
                case marks:
                    fresh[name] = marks
    if fresh:
        time.sleep(settle_s)
    for name, marks in fresh.items():
        with _noting(name, said, failures):
            said[name] = announce(watched[name], marks)

    publish_look(said)
    if failures:
        raise failures[0]
    return said


@contextmanager
def _noting(name: str, said: dict[str, str], failures: list[PromptmintError]) -> Iterator[None]:
    """One recipe's trouble does not keep the others from being looked at.

    Data that are not there, or are not what is read, may not have been delivered yet: they are told, and are no failure
    of the look.
    """
    try:
        yield
    except DataError as error:
        said[name] = str(error)
    except PromptmintError as error:
        said[name] = f"failed: {error}"
        failures.append(error)
