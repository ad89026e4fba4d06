"""A look at the recipes' data on a real Prefect server: one event for each new snapshot, none for anything else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient

from flows.watch import watch
from pipelines.data.snapshot import source_digest
from pipelines.errors import RecipeError, StoreError
from pipelines.recipe import load_recipe
from tasks import watching
from tasks.limits import one_of, turn_of


@pytest.fixture
def name() -> str:
    """A recipe's name that no other test's events have."""
    return f"orchard-{uuid.uuid4().hex[:8]}"


def events(client: SyncPrefectClient, name: str) -> list[dict[str, Any]]:
    """Payloads of the events that were told of a recipe."""
    body = {"filter": {"event": {"name": [watching.EVENT]}, "resource": {"id": [f"promptmint.recipe.{name}"]}}}
    found = client.request("POST", "/events/filter", json=body).json()["events"]
    return [event["payload"] for event in found]


def test_new_data_make_one_event_with_name_and_snapshot(
    workshop: Any, client: SyncPrefectClient, until: Callable[..., Any], name: str
) -> None:
    recipe = workshop.recipe(name)
    digest = source_digest(recipe.data, recipe.folder)
    assert digest
    assert watch([name], settle_s=0) == {name: f"new, {digest[:12]}"}
    assert until(lambda: events(client, name)) == [{"recipe": name, "snapshot": digest}]

    assert watch([name], settle_s=0) == {name: f"announced, {digest[:12]}, no run has ended with it yet"}
    (workshop.folder / name / "a.csv").touch()
    assert watch([name], settle_s=0) == {name: f"touched, still {digest[:12]}"}
    workshop.deliver(name, "b.csv", "text,label\nmast,boats\n")
    assert watch(settle_s=0)[name].startswith("new, ")  # None: every recipe of the folder
    assert len(until(lambda: len(events(client, name)) == 2 and events(client, name))) == 2


def test_a_file_that_grows_is_left_until_it_rests(
    workshop: Any, prefect_server: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.recipe(name)
    told: list[str] = []
    monkeypatch.setattr(watching, "emit", lambda recipe, snapshot: told.append(snapshot))
    monkeypatch.setattr("flows.watch.time.sleep", lambda _: workshop.deliver(name, "a.csv", "text,label\nco"))
    assert watch([name]) == {name: "still being written"}
    workshop.deliver(name, "a.csv", "text,label\ncore,apples\nmast,boats\n")
    monkeypatch.setattr("flows.watch.time.sleep", lambda _: None)
    assert watch([name])[name].startswith("new, ") and len(told) == 1


def test_what_was_minted_already_makes_no_event(workshop: Any, client: SyncPrefectClient, name: str) -> None:
    record = workshop.finish(name)
    assert watch([name], settle_s=0) == {name: f"minted already, {record['data_digest'][:12]}"}
    assert watch([name], settle_s=0) == {name: "nothing new"}
    assert events(client, name) == []


def test_an_announcement_of_which_nothing_came_is_made_again_ever_more_rarely(
    workshop: Any, client: SyncPrefectClient, until: Callable[..., Any], name: str
) -> None:
    recipe = workshop.recipe(name)

    def looks(number: int) -> list[int]:
        """Which of so many looks announced the data again."""
        said = [str(watching.look.fn(recipe)) for _ in range(number)]
        return [index for index, each in enumerate(said) if each.startswith("announced again")]

    @flow
    def while_a_run_is_at_work() -> list[int]:
        with one_of(1, turn_of(name)):
            return looks(5)

    assert watch([name], settle_s=0)[name].startswith("new, ")
    assert looks(10) == [1, 5]
    assert len(until(lambda: len(events(client, name)) == 3 and events(client, name))) == 3
    assert while_a_run_is_at_work() == []
    assert looks(10) == [3]  # where it left off: that run died
    workshop.finish(name)
    assert watching.look.fn(recipe) == "nothing new"
    path = workshop.folder / "recipes" / f"{name}.toml"
    path.write_text(path.read_text().replace("tokens = 4", "tokens = 5"))
    recipe = load_recipe(path)  # changed after the run: a change of the recipe is no new data
    assert looks(9) == []
    workshop.deliver(name, "b.csv", "text,label\nmast,boats\n")
    assert watch([name], settle_s=0)[name].startswith("new, ")
    assert looks(2) == [1]  # other data are waited for anew


def test_an_event_that_is_not_taken_is_told_again(
    workshop: Any, prefect_server: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.recipe(name)

    def refuse(recipe: str, snapshot: str) -> None:
        raise StoreError("down")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="down"):
        patch.setattr(watching, "emit", refuse)
        watch([name], settle_s=0)
    assert watch([name], settle_s=0)[name].startswith("new, ")


def test_one_recipes_trouble_does_not_hide_anothers_data(workshop: Any, prefect_server: None, name: str) -> None:
    workshop.recipe(name)
    workshop.recipe("empty")
    (workshop.folder / "empty" / "a.csv").unlink()
    said = watch(["empty", name], settle_s=0)
    assert said["empty"].startswith("There are no data at") and said[name].startswith("new, ")


def test_a_name_that_is_not_known_is_refused(workshop: Any, prefect_server: None, name: str) -> None:
    workshop.recipe(name)
    with pytest.raises(RecipeError, match=rf"no recipe named '/etc/passwd'.*Known names: '{name}'"):
        watch(["/etc/passwd"])
