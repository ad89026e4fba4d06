"""The prompt and its baselines tuned, each once."""

from __future__ import annotations

from typing import Any

from prefect import task

from pipelines.bases.pin import PinnedBase
from pipelines.recipe import Recipe
from pipelines.settings import cache_folder
from pipelines.store.store import the_store
from pipelines.store.trees import load_checked_tree
from pipelines.training.compute import Compute
from tasks.progress import News, StageProgress, tell
from tasks.retrying import RETRYING


@task(task_run_name="train", **RETRYING)
def train(recipe: Recipe, base: PinnedBase, shards: dict[str, str], compute: Compute) -> dict[str, dict[str, Any]]:
    """What tuning gave per method: its weights' tree, parameters, bytes, seconds and curves."""
    from pipelines.training.tuning import train_all

    store = the_store()
    return train_all(
        store, recipe, base, load_checked_tree(store, base.digest, cache_folder()), shards, compute, cache_folder(),
        on_news=StageProgress("train"),
        on_result=lambda name, reused: tell(News("train", f"{name}: {'from the store' if reused else 'done'}", 1, 1)),
    )  # fmt: skip
