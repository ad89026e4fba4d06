"""New data seen, half-written data left alone, data that were told not told again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.data import arrivals
from pipelines.data.snapshot import snapshot
from pipelines.digests import digest_json
from pipelines.errors import DataError
from pipelines.recipe import Recipe, load_recipe
from pipelines.store.local import LocalStore

RECIPE = """
name = "talk"
base = { name = "none", sources = ["file://none"] }
data = { path = "PATH", labels = ["apples", "boats"] }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(params=["talk", "talk/*.csv", "talk/a.csv"], ids=["folder", "glob", "file"])
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    """A recipe whose data are a folder, a glob or a file; one file lies there."""
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "a.csv").write_text("text,label\ncore,apples\n")
    (tmp_path / "talk.toml").write_text(RECIPE.replace("PATH", request.param))
    return load_recipe(tmp_path / "talk.toml")


def file(recipe: Recipe) -> Path:
    return recipe.folder / "talk" / "a.csv"


def test_new_data_are_seen_once(store: LocalStore, recipe: Recipe) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found and set(found) == {"a.csv"}
    digest = arrivals.settled_snapshot(recipe, found)
    assert digest == snapshot(store, recipe.data, recipe.folder).digest
    assert digest and arrivals.is_new(store, recipe, digest)
    arrivals.remember(store, recipe, found, digest, waiting=True)
    assert arrivals.changed_marks(store, recipe) is None
    assert not arrivals.is_new(store, recipe, digest)


def test_changed_data_are_new_again(store: LocalStore, recipe: Recipe) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found
    digest = arrivals.settled_snapshot(recipe, found)
    assert digest
    arrivals.remember(store, recipe, found, digest, waiting=True)
    file(recipe).write_text("text,label\nmast,boats\n")
    changed = arrivals.changed_marks(store, recipe)
    assert changed and changed != found
    other = arrivals.settled_snapshot(recipe, changed)
    assert other and arrivals.is_new(store, recipe, other)


@pytest.mark.parametrize("moment_s", [0, 4_102_444_800], ids=["1970", "2100"])
def test_a_file_that_was_only_touched_is_looked_at_but_not_new(
    store: LocalStore, recipe: Recipe, moment_s: int
) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found
    digest = arrivals.settled_snapshot(recipe, found)
    assert digest
    arrivals.remember(store, recipe, found, digest, waiting=True)
    os.utime(file(recipe), (moment_s, moment_s))  # by a clock that jumped decades
    touched = arrivals.changed_marks(store, recipe)
    assert touched and arrivals.settled_snapshot(recipe, touched) == digest
    assert not arrivals.is_new(store, recipe, digest)
    assert arrivals.announced(store, recipe).told == 1  # and is waited for as before


def test_what_an_older_promptmint_announced_is_not_waited_for(store: LocalStore, recipe: Recipe) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found
    store.write("watch/talk.json", json.dumps({"marks": digest_json(found), "snapshot": "0" * 64}).encode())
    assert arrivals.changed_marks(store, recipe) is None
    assert arrivals.announced(store, recipe).told == 0


def test_what_grew_between_the_looks_is_still_being_written(store: LocalStore, recipe: Recipe) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found
    with file(recipe).open("a") as writer:
        writer.write("half a li")
        writer.flush()
        assert arrivals.settled_snapshot(recipe, found) is None


def test_what_changes_while_it_is_digested_is_not_taken(
    store: LocalStore, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = arrivals.changed_marks(store, recipe)
    assert found
    digested = arrivals.source_digest

    def while_somebody_writes(*source: object) -> str | None:
        with file(recipe).open("a") as writer:
            writer.write("more,boats\n")
        return digested(*source)  # type: ignore[arg-type]

    monkeypatch.setattr(arrivals, "source_digest", while_somebody_writes)
    assert arrivals.settled_snapshot(recipe, found) is None


def test_no_data_are_an_error_that_says_so(store: LocalStore, recipe: Recipe) -> None:
    file(recipe).unlink()
    with pytest.raises(DataError, match="There are no data"):
        arrivals.changed_marks(store, recipe)


def test_a_set_on_the_hub_names_its_revision_and_never_changes(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(RECIPE.replace("PATH", "hf://org/set@0123abc"))
    assert arrivals.changed_marks(store, load_recipe(tmp_path / "hub.toml")) is None
