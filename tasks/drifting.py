"""Drift: the data held against those that the reigning champion learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from pipelines.bases.pin import PinnedBase
from pipelines.data.drift import Sample, against_champion, seen_of_test
from pipelines.promotion.champion import reigning
from pipelines.recipe import Recipe
from pipelines.settings import cache_folder
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.trees import load_checked_tree, load_tree
from pipelines.training.compute import Compute
from tasks.progress import StageProgress
from tasks.retrying import RETRYING
from tasks.tokens import encoded


@task(task_run_name="seen by the champion", **RETRYING)
def seen_by_champion(recipe: Recipe, run_key: str, split_trees: Mapping[str, str]) -> dict[str, Any] | None:
    """`{version, examples, of, ids, why_not}`: how many of the test examples the champion learnt from.

    `ids` is the digest of a JSON list of them, None where there are none. None as a whole: nobody to be compared with.
    """
    store = the_store()
    champion = reigning(store, the_ledger(), recipe.name, run_key)
    if champion.record is None or champion.of_others(recipe.data.labels):
        return None
    return seen_of_test(store, champion, split_trees["test"], cache_folder())


@task(task_run_name="drift", **RETRYING)
def drift(
    recipe: Recipe, base: PinnedBase, run_key: str, split_trees: Mapping[str, str], compute: Compute
) -> dict[str, Any]:
    """How far this run's data have moved from the champion's: see `against_champion`. Asked for by `[drift]`."""
    assert recipe.drift is not None
    store, settings = the_store(), recipe.drift
    champion = reigning(store, the_ledger(), recipe.name, run_key)

    def embed(before: Sample, after: Sample) -> Any:
        from pipelines.data.drift.embedding import embedded

        known = champion.record["data"]["split_trees"] if champion.record else {}
        parts = [
            (load_tree(store, encoded(recipe, recipe.template, base, trees[split])["tree"], cache_folder()), places)
            for trees, side in ((known, before), (split_trees, after))
            for split, places in side.thinned(settings.embedded).items()
        ]
        folder = load_checked_tree(store, base.digest, cache_folder())
        return embedded(folder, parts, compute, cache_folder(), StageProgress("drift"))

    read_by = {"base": base.digest, "template": recipe.template.model_dump(mode="json")}
    return against_champion(
        store, champion, split_trees, recipe.data.labels, settings, recipe.seed, read_by, embed, cache_folder()
    )
