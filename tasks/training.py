"""The prompt and its baselines tuned, each once; before that, where a recipe asks for it, their settings chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact

from mlflow_config.live import live
from pipelines.bases.pin import PinnedBase
from pipelines.evaluation.report import SWEPT, leaderboard_rows
from pipelines.promotion.champion import reigning
from pipelines.recipe import Recipe
from pipelines.settings import cache_folder
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.trees import load_checked_tree
from pipelines.training import warm
from pipelines.training.compute import Compute
from pipelines.training.kept import Kept
from pipelines.training.kept import keep as keep_weights
from pipelines.training.warm import Begun, Start
from tasks.progress import News, StageProgress, tell
from tasks.retrying import RETRYING, telling_prefect


@task(task_run_name="keep", **RETRYING)
def keep(recipe: Recipe, base: PinnedBase, splits: Mapping[str, str], refresh: Sequence[str] = ()) -> Kept:
    """The baselines' weights of earlier runs that may judge this one; `refresh` says why there may be none."""
    return keep_weights(the_store(), recipe, base.digest, splits["test"], refresh, cache_folder(), datetime.now(UTC))


@task(task_run_name="begin", **RETRYING)
def begin(recipe: Recipe, base: PinnedBase, run_key: str, splits: Mapping[str, str]) -> Begun:
    """What the prompt's training starts from: the champion, where it may be."""
    store = the_store()
    champion = reigning(store, the_ledger(), recipe.name, run_key)
    return warm.begin(store, champion, base.digest, recipe.data.labels, splits, cache_folder())


@task(task_run_name="train", **RETRYING)
def train(
    recipe: Recipe, base: PinnedBase, shards: dict[str, str], compute: Compute, kept: Kept, start: Start | None = None
) -> dict[str, dict[str, Any]]:
    """What tuning gave per method: its weights' tree, parameters, bytes, seconds and curves."""
    from pipelines.training.tuning import train_all

    store = the_store()
    with _shown("train", recipe) as news:
        return train_all(
            store, recipe, base, load_checked_tree(store, base.digest, cache_folder()), shards, compute, cache_folder(),
            on_news=news, on_result=partial(_tell_result, "train"), kept=kept.results, start=start,
        )  # fmt: skip


@task(task_run_name="sweep", **RETRYING)
def sweep(
    recipe: Recipe, base: PinnedBase, shards: dict[str, str], compute: Compute, start: Start | None = None
) -> list[dict[str, Any]]:
    """The leaderboard of the recipe's sweep, best first, method by method; published as a table of this run."""
    from pipelines.training import leaderboard

    store = the_store()
    with _shown("sweep", recipe) as news:
        rows = leaderboard.sweep(
            store, recipe, base, load_checked_tree(store, base.digest, cache_folder()), shards, compute, cache_folder(),
            on_news=news, on_result=partial(_tell_result, "sweep"), start=start,
        )  # fmt: skip
    table = [dict(zip(SWEPT, row, strict=True)) for row in leaderboard_rows(rows)]
    with telling_prefect():
        create_table_artifact(table, key=f"{recipe.name}-leaderboard", description="Chosen by the validation split")
    return rows


@contextmanager
def _shown(stage: str, recipe: Recipe) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Takes the lines of a worker's progress: news, a progress artifact, and, where it lasts, a live run in MLflow."""
    progress = StageProgress(stage)
    with live(f"{recipe.name}, {stage} live") as shown:

        def news(line: dict[str, Any]) -> None:
            progress(line)
            shown(line)

        yield news


def _tell_result(stage: str, name: str, reused: bool) -> None:
    tell(News(stage, f"{name}: {'from the store' if reused else 'done'}", 1, 1))
