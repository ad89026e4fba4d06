"""Whether new data lie at a recipe's source: two looks that agree, then one digest.

The first look is cheap: names, sizes and times. Where it finds what was announced last, that is all. Otherwise
somebody may still be writing, so the same look a moment later must see the same before a byte is digested, and once
more afterwards. No clock is read: times of files are compared with each other, never with now.

An announcement may be lost on its way to a run. So it is made again after 2 more looks, then after 4, 8 and so on,
while nothing comes of it. Looks are counted, because a clock may jump; one announcement too many ends as unchanged.

    watch/RECIPE.json    what was announced last, in the store: see `Announced`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipelines.data.snapshot import source_digest
from pipelines.data.sources import marks
from pipelines.digests import canonical_json, digest_json
from pipelines.errors import NotInStore
from pipelines.recipe import Recipe
from pipelines.store.store import Store

Marks = Mapping[str, str]


@dataclass(frozen=True)
class Announced:
    """What was announced last of a recipe's data."""

    marks: str | None = None  # the digest of the marks
    snapshot: str | None = None
    told: int = 0  # how often, while a run is waited for; 0: none is
    looks: int = 0  # since it was told last


def changed_marks(store: Store, recipe: Recipe) -> dict[str, str] | None:
    """The marks of what lies at the source; None where they are those of the last announcement.

    A set on the hub is named with its revision and never changes: it has none.

    Raises:
        DataError: nothing lies there, or something that is not read.
        StoreError: the store or the S3 bucket cannot be reached.
    """
    if recipe.data.path.startswith("hf://"):
        return None
    found = marks(recipe.data, recipe.folder)
    return None if digest_json(found) == announced(store, recipe).marks else found


def settled_snapshot(recipe: Recipe, before: Marks) -> str | None:
    """The digest of the data that lay still since `before`; None where somebody still writes them, or writes again.

    It is the digest that `snapshot` will have.
    """
    if marks(recipe.data, recipe.folder) != before:
        return None
    digest = source_digest(recipe.data, recipe.folder)
    return digest if marks(recipe.data, recipe.folder) == before else None


def is_new(store: Store, recipe: Recipe, snapshot: str) -> bool:
    """Whether this snapshot is another one than was announced last: a file that was only touched is not."""
    return snapshot != announced(store, recipe).snapshot


def remember(store: Store, recipe: Recipe, found: Marks, snapshot: str, waiting: bool) -> None:
    """Write down that these data were seen, and whether they were announced and a run is waited for.

    Data that were only touched have been announced as often as before.
    """
    before = announced(store, recipe)
    marked = digest_json(dict(found))
    fresh = Announced(marked, snapshot, told=int(waiting))
    _write(store, recipe, replace(before, marks=marked) if snapshot == before.snapshot else fresh)


def overdue(store: Store, recipe: Recipe) -> bool:
    """Whether it is time to announce the same data again; counts this look."""
    waiting = announced(store, recipe)
    _write(store, recipe, replace(waiting, looks=waiting.looks + 1))
    return waiting.told > 0 and waiting.looks + 1 >= 2**waiting.told


def told_again(store: Store, recipe: Recipe) -> int:
    """How often the data are announced by now, once more than before; looks are counted anew."""
    waiting = announced(store, recipe)
    _write(store, recipe, replace(waiting, told=waiting.told + 1, looks=0))
    return waiting.told + 1


def answered(store: Store, recipe: Recipe) -> None:
    """Write down that a run has ended with what was announced: nobody waits for one any more."""
    _write(store, recipe, replace(announced(store, recipe), told=0, looks=0))


def announced(store: Store, recipe: Recipe) -> Announced:
    """What was announced last; nothing where nothing ever was."""
    try:
        return Announced(**json.loads(store.read(_key(recipe))))
    except NotInStore:
        return Announced()


def _write(store: Store, recipe: Recipe, now: Announced) -> None:
    store.write(_key(recipe), canonical_json(asdict(now)))


def _key(recipe: Recipe) -> str:
    return f"watch/{recipe.name}.json"
