"""A sweep: settings to choose from, and a recipe with some of them changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from .methods import OWN_KEYS
from .section import Section, Seed

if TYPE_CHECKING:
    from .recipe import Recipe

Grid = dict[str, Any]  # a value, or a list of the values to try, for each key


class Sweep(Section):
    """`[sweep]`: settings to choose from by the validation split, before the test split has its say.

    Each method has grids of its keys, the prompt's of `seed` too; every combination is tuned on the training split.
    """

    prompt: tuple[Grid, ...] = ()
    lora: tuple[Grid, ...] = ()
    adapters: tuple[Grid, ...] = ()
    full: tuple[Grid, ...] = ()
    head_only: tuple[Grid, ...] = ()

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there were adapters keep their digests.
        return {key: value for key, value in dump(self).items() if key != "adapters" or value}

    def combinations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every method's name with each of its combinations, `{key: value}`."""
        for method in type(self).model_fields:
            for grid in getattr(self, method):
                choices = [value if isinstance(value, list) else [value] for value in grid.values()]
                yield from ((method, dict(zip(grid, values, strict=True))) for values in itertools.product(*choices))


def changed(recipe: Recipe, method: str, change: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings of one method changed, and with another `seed` where the change names one.

    Where the prompt's own method changes, the keys that only the old one has are left out.

    Raises:
        ValueError: the changed settings are not valid, or the recipe has no such baseline.
    """
    settings = recipe.prompt if method == "prompt" else getattr(recipe.baselines, method)
    if settings is None:
        raise ValueError(f"sweep.{method} needs [baselines.{method}]")
    if method != "prompt" and "seed" in change:
        raise ValueError(f"sweep.{method}: the seed is the prompt's to choose; every method of the recipe has the same")
    new = {key: value for key, value in change.items() if key != "seed"}
    kept = settings.model_dump(exclude_unset=True)
    if "method" in new:
        kept = {key: value for key, value in kept.items() if not any(key in keys for keys in OWN_KEYS.values())}
    with in_one_line(f"sweep.{method}: {dict(change)!r} is not possible"):
        settled = type(settings).model_validate({**kept, **new})
        seed = TypeAdapter(Seed).validate_python(change.get("seed", recipe.seed))
    part = {"prompt": settled} if method == "prompt" else {
        "baselines": recipe.baselines.model_copy(update={method: settled})
    }  # fmt: skip
    return recipe.model_copy(update={"seed": seed, **part})


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """The first problem that validation finds in here, as one line that begins with `what`."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{what}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
