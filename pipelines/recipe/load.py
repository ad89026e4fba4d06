"""A recipe read from its file; what is wrong with it, in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import RecipeError, listed
from .recipe import Recipe
from .section import Section


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a TOML file, validated.

    Raises:
        RecipeError: no such file, not TOML, an unknown key, or a value out of range; the message names all of them.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = listed(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else "(no such folder)"
        raise RecipeError(f"There is no recipe {str(path)!r}. In that folder: {near}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"Cannot read the recipe {str(path)!r}: {error}.") from error
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"The recipe {str(path)!r} is not valid:\n{_explained(error)}") from None
    recipe._folder = path.parent.resolve()
    return recipe


def _explained(error: ValidationError) -> str:
    """One line per problem: where, what, the value, and which keys exist where one is unknown."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "recipe"
        if problem["type"] == "extra_forbidden":
            keys = listed(_keys_at(problem["loc"][:-1]))
            lines.append(f"  {where}: unknown key. Known here: {keys}.")
        elif problem["type"] == "missing":
            lines.append(f"  {where}: missing.")
        else:
            lines.append(f"  {where}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r:.120}).")
    return "\n".join(lines)


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at `location`, found by walking the annotations."""
    section: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> Any:
    """The section class named in an annotation such as `Lora | None` or `tuple[NonInferiority, ...]`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, getattr(annotation, "__args__", ()))), None)
