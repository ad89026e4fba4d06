"""The data as the base reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from pipelines.bases.pin import PinnedBase
from pipelines.memo import once
from pipelines.recipe import Recipe, Template
from pipelines.settings import cache_folder
from pipelines.store.opening import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.tokens import encode
from tasks.retrying import RETRYING


@task(task_run_name="tokenize", **RETRYING)
def tokenize(recipe: Recipe, base: PinnedBase, report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each split what `encode.tokenize` gives, for the recipe's template and base."""
    return {split: encoded(recipe, recipe.template, base, tree) for split, tree in report["split_trees"].items()}


def encoded(recipe: Recipe, template: Template, base: PinnedBase, split_tree: str) -> dict[str, Any]:
    """One split's shards and how long they are, from the store where they were made before."""
    store, labels = the_store(), recipe.data.labels
    inputs: dict[str, Any] = {
        "split": split_tree,
        "base": base.digest,
        "template": template.model_dump(mode="json"),
        "labels": list(labels),
        **({"max_new_tokens": recipe.head.max_new_tokens} if recipe.head.generates else {}),
    }

    def compute() -> dict[str, Any]:
        folder = load_checked_tree(store, base.digest, cache_folder())
        return encode.tokenize(
            store, split_tree, folder, base.digest, template, labels, cache_folder(), recipe.head.max_new_tokens
        )

    found: dict[str, Any] = once(store, encode.STAGE, inputs, compute).value
    return found
