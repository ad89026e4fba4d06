"""New data at a recipe's source made an event."""

from __future__ import annotations

from typing import Any

import httpx
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.events.schemas.events import Event, Resource

from pipelines.data import arrivals
from pipelines.digests import short
from pipelines.errors import TransientError
from pipelines.recipe import Recipe
from pipelines.runs import unchanged
from pipelines.store.opening import the_store
from pipelines.store.store import Store
from tasks.limits import taken, turn_of
from tasks.retrying import RETRYING, telling_prefect

EVENT = "promptmint.data.arrived"  # prefect.yaml waits for it


@task(task_run_name="look at {recipe.name}", **RETRYING)
def look(recipe: Recipe) -> dict[str, str] | str:
    """What lies at the recipe's source now, file by file; or in words, that it is what was announced last.

    An announcement of which nothing came is made again: see `pipelines/data/arrivals.py`.
    """
    store = the_store()
    found = arrivals.changed_marks(store, recipe)
    return _what_came_of_it(store, recipe) if found is None else found


@task(task_run_name="announce {recipe.name}", **RETRYING)
def announce(recipe: Recipe, found: dict[str, str]) -> str:
    """One event for data that have lain still since they were found, and what was done, in words.

    What was minted from these very data needs no event. The event is written down after it was taken by the server:
    where the two are torn apart the next look tells it again, and the second run ends as unchanged.
    """
    store = the_store()
    snapshot = arrivals.settled_snapshot(recipe, found)
    if snapshot is None:
        return "still being written"
    waiting = False
    if not arrivals.is_new(store, recipe, snapshot):
        said = f"touched, still {short(snapshot)}"
    elif unchanged(store, recipe, snapshot):
        said = f"minted already, {short(snapshot)}"
    else:
        emit(recipe.name, snapshot)
        said, waiting = f"new, {short(snapshot)}", True
    arrivals.remember(store, recipe, found, snapshot, waiting)
    return said


@task(task_run_name="publish look", **RETRYING)
def publish_look(found: dict[str, str]) -> None:
    """What a look at the sources found, as a table in Prefect's UI."""
    table: list[dict[str, Any]] = [{"Recipe": name, "Data": said} for name, said in found.items()]
    with telling_prefect():
        create_table_artifact(table, key="watch", description="What lay at the recipes' sources")


def _what_came_of_it(store: Store, recipe: Recipe) -> str:
    """What came of the last announcement, in words; it is made again where nothing did, and nothing is under way."""
    last = arrivals.announced(store, recipe)
    if not last.told or last.snapshot is None:
        return "nothing new"
    if unchanged(store, recipe, last.snapshot):
        arrivals.answered(store, recipe)
        return "nothing new"
    if taken(turn_of(recipe.name)):
        return "nothing new, a run is at work"
    if not arrivals.overdue(store, recipe):
        return f"announced, {short(last.snapshot)}, no run has ended with it yet"
    emit(recipe.name, last.snapshot)
    return f"announced again, {short(last.snapshot)}, {arrivals.told_again(store, recipe)} times by now"


def emit(recipe: str, snapshot: str) -> None:
    """Tell the Prefect server that a snapshot has arrived. Raises `TransientError` where it does not take the event."""
    event = Event(
        event=EVENT,
        resource=Resource({"prefect.resource.id": f"promptmint.recipe.{recipe}", "promptmint.snapshot": snapshot}),
        payload={"recipe": recipe, "snapshot": snapshot},
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except httpx.HTTPError as error:
        raise TransientError(f"Prefect did not take the event {EVENT!r} of {recipe!r}: {error}. Try again.") from error
