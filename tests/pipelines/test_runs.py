"""A run is named by its recipe, its base and its data; equal ones end as unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.bases.pin import pin_base
from pipelines.data.snapshot import snapshot
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import METHODS, finish, finished, new_record, next_number, recorded, run_key, unchanged
from pipelines.store.local import LocalStore

RECIPE = """
name = "tickets"
[base]
name = "tiny"
sources = ["file://base"]
[data]
path = "tickets.csv"
labels = ["account", "billing"]
[prompt]
method = "p-tuning-v2"
tokens = 8
rate = 0.01
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe with its base and its data beside it."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "base/model.safetensors").write_text("weights")
    (tmp_path / "base/tokenizer.json").write_text("{}")
    (tmp_path / "tickets.csv").write_text("text,label\nmy refund,billing\n")
    return written(tmp_path, RECIPE)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def written(folder: Path, text: str) -> Recipe:
    (folder / "recipe.toml").write_text(text)
    return load_recipe(folder / "recipe.toml")


def run(store: LocalStore, recipe: Recipe) -> dict[str, Any]:
    """A run that ends at once."""
    base = pin_base(store, recipe.base, recipe.folder, recipe.folder / "scratch")
    data = snapshot(store, recipe.data, recipe.folder)
    record = new_record(recipe, run_key(recipe, base.digest, data.digest), base.digest, data.digest)
    record |= {"verdict": "passed", "version": 3}
    finish(store, record)
    return record


def test_a_key_is_of_recipe_base_and_data(recipe: Recipe, tmp_path: Path) -> None:
    key = run_key(recipe, "a" * 64, "b" * 64)
    assert key == run_key(written(tmp_path, RECIPE.replace("[base]", 'description = "x"\n[base]')), "a" * 64, "b" * 64)
    others = [
        run_key(recipe, "c" * 64, "b" * 64),
        run_key(recipe, "a" * 64, "c" * 64),
        run_key(recipe, "b" * 64, "a" * 64),
        run_key(written(tmp_path, RECIPE.replace("0.01", "0.02")), "a" * 64, "b" * 64),
    ]
    assert len({key, *others}) == 5


def test_a_new_record_names_everything_and_decides_nothing(recipe: Recipe) -> None:
    record = new_record(recipe, "k" * 64, "a" * 64, "b" * 64)
    assert record["scores"] == dict.fromkeys(METHODS) and record["gates"] == [] and record["unchanged"] is False
    assert [record[name] for name in ("verdict", "reason", "version", "prompt_digest", "artifact")] == [None] * 5
    assert (record["run_key"], record["base_digest"], record["data_digest"]) == ("k" * 64, "a" * 64, "b" * 64)
    assert record["recipe"] == "tickets" and record["recipe_digest"] == recipe.digest
    assert Recipe.model_validate(record["settings"]).digest == recipe.digest  # enough to do it again
    json.dumps(record)


def test_a_finished_run_is_found_again(store: LocalStore, recipe: Recipe) -> None:
    assert finished(store, "tickets", "k" * 64) is None
    record = run(store, recipe)
    assert finished(store, "tickets", record["run_key"]) == record
    assert finished(store, "other", record["run_key"]) is None


def test_the_last_run_is_the_last_by_its_number_whatever_the_clock_says(store: LocalStore) -> None:
    def ran(key: str, at: str | None, **more: Any) -> None:
        finish(store, {"recipe": "tickets", "run_key": key, "at": at, **more})

    ran("c", None, version=1)
    ran("b", "2026-03-01T12:00:00+00:00")
    ran("a", "2026-03-02T12:00:00+00:00")  # so far of an older promptmint
    for key, year in (("f", 2100), ("d", 1970), ("e", 2026)):
        ran(key, f"{year}-03-03T12:00:00+00:00", number=next_number(store, "tickets"))
    assert [record["run_key"] for record in recorded(store, "tickets")] == ["c", "b", "a", "f", "d", "e"]
    assert [record.get("number") for record in recorded(store, "tickets")] == [None, None, None, 4, 5, 6]


def test_equal_inputs_make_an_unchanged_run(store: LocalStore, recipe: Recipe, tmp_path: Path) -> None:
    assert unchanged(store, recipe) is None  # the base is not pinned
    base = pin_base(store, recipe.base, recipe.folder, tmp_path / "scratch")
    assert unchanged(store, recipe) is None  # no run has ended
    record = run(store, recipe)
    assert record["base_digest"] == base.digest
    keys = store.keys("")
    assert unchanged(store, recipe) == {**record, "unchanged": True}
    assert store.keys("") == keys
    assert unchanged(store, recipe, record["data_digest"]) == {**record, "unchanged": True}
    assert unchanged(store, recipe, "f" * 64) is None
    described = written(tmp_path, RECIPE.replace("[base]", 'description = "x"\n[base]'))
    assert unchanged(store, described) == {**record, "unchanged": True}


@pytest.mark.parametrize("change", ["recipe", "data", "base"])
def test_whatever_differs_makes_another_run(store: LocalStore, recipe: Recipe, tmp_path: Path, change: str) -> None:
    run(store, recipe)
    match change:
        case "recipe":
            recipe = written(tmp_path, RECIPE.replace("tokens = 8", "tokens = 9"))
        case "data":
            (tmp_path / "tickets.csv").write_text("text,label\nmy refund,billing\nmy login,account\n")
        case "base":
            recipe = written(tmp_path, RECIPE.replace('name = "tiny"', 'name = "tiny two"'))
    assert unchanged(store, recipe) is None


def test_data_on_a_hub_are_never_known_to_be_unchanged(store: LocalStore, recipe: Recipe, tmp_path: Path) -> None:
    run(store, recipe)
    assert unchanged(store, written(tmp_path, RECIPE.replace("tickets.csv", "hf://org/set@main"))) is None
