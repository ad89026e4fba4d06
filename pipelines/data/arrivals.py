"""Whether new data lie at a recipe's source: two looks that agree, then one digest.

The first look is cheap: names, sizes and times. Where it finds what was announced last, that is all. Otherwise
somebody may still be writing, so the same look a moment later must see the same before a byte is digested, and once
more afterwards. No clock is read: times of files are compared with each other, never with now.

    watch/RECIPE.json    the marks and the snapshot that were announced last, in the store
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipelines.data.snapshot import source_digest
from pipelines.data.sources import marks
from pipelines.digests import canonical_json, digest_json
from pipelines.errors import NotInStore
from pipelines.recipe import Recipe
from pipelines.store.store import Store

Marks = Mapping[str, str]


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
    return None if digest_json(found) == _announced(store, recipe)["marks"] else found


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
    return snapshot != _announced(store, recipe)["snapshot"]


def remember(store: Store, recipe: Recipe, found: Marks, snapshot: str) -> None:
    """Write down that these data were announced."""
    value = {"marks": digest_json(dict(found)), "snapshot": snapshot}
    store.write(_key(recipe), canonical_json(value))


def _announced(store: Store, recipe: Recipe) -> dict[str, str | None]:
    try:
        found: dict[str, str | None] = json.loads(store.read(_key(recipe)))
    except NotInStore:
        return {"marks": None, "snapshot": None}
    return found


def _key(recipe: Recipe) -> str:
    return f"watch/{recipe.name}.json"
