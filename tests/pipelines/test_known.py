"""Recipes by name: nothing else on the disk is opened, whatever an event says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import RecipeError
from pipelines.known import find_recipe, known_recipes
from pipelines.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recipes, a file that is none, and one that cannot be read, beside a recipe outside."""
    inside = tmp_path / "recipes"
    inside.mkdir()
    (inside / "one.toml").write_text('name = "first"\n')
    (inside / "two.toml").write_text('name = "second"\n')
    (inside / "profile.toml").write_text("workers = 1\n")
    (inside / "broken.toml").write_text("name = \n")
    (tmp_path / "outside.toml").write_text('name = "outside"\n')
    return inside


def test_a_recipe_is_found_by_the_name_in_it(folder: Path) -> None:
    assert known_recipes(folder) == {"first": folder / "one.toml", "second": folder / "two.toml"}
    assert find_recipe("second", folder) == folder / "two.toml"


@pytest.mark.parametrize(
    "forged", ["", "third", "one.toml", "../outside.toml", "../outside", "/etc/passwd", "fir*", None]
)
def test_anything_else_is_refused_with_the_names_there_are(folder: Path, forged: str) -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe named .*Known names: 'first', 'second'\."):
        find_recipe(forged, folder)


def test_no_folder_knows_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"Known names: \(none\)"):
        find_recipe("first", tmp_path / "nowhere")


def test_two_of_one_name_are_refused(folder: Path) -> None:
    (folder / "three.toml").write_text('name = "first"\n')
    with pytest.raises(RecipeError, match=r"Two recipes are named 'first': .*one\.toml.*three\.toml"):
        known_recipes(folder)


def test_every_recipe_of_the_tree_is_known_by_its_name() -> None:
    known = known_recipes(ROOT / "recipes")
    assert len(known) == len(list((ROOT / "recipes").glob("*.toml")))
    assert all(load_recipe(path).name == name for name, path in known.items())
