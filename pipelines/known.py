"""The recipes that a deployment may run: the files of one folder, each known by the name that it gives itself.

An event or a form brings a name, never a path: what it says is looked up here, and nothing else on the disk is opened.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pipelines.errors import RecipeError, listed


def known_recipes(folder: Path) -> dict[str, Path]:
    """`{name: file}` of every recipe in the folder, sorted; a file that says no name is none.

    Raises:
        RecipeError: two files have the same name.
    """
    known: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        name = _name_in(path)
        if name in known:
            raise RecipeError(f"Two recipes are named {name!r}: {str(known[name])!r} and {str(path)!r}. Rename one.")
        if name is not None:
            known[name] = path
    return dict(sorted(known.items()))


def find_recipe(name: str, folder: Path) -> Path:
    """The file of the recipe that has this name.

    Raises:
        RecipeError: there is none, or what was given is no name at all, as in an event without a payload.
    """
    known = known_recipes(folder)
    if name not in known:
        raise RecipeError(
            f"There is no recipe named {name!r} in {str(folder)!r}. Known names: {listed(known)}. A deployment takes "
            "a recipe's name, never its path; PROMPTMINT_RECIPES says which folder is meant."
        )
    return known[name]


def _name_in(path: Path) -> str | None:
    """What the file calls itself; whether all of it is a recipe is checked when it is loaded."""
    try:
        name = tomllib.loads(path.read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError):
        return None
    return name if isinstance(name, str) else None
