"""A sweep: every combination of a recipe's grids tuned, ranked by the validation split, the best of each method chosen.

The test split is not read here. What is tuned goes through the same memo as any training: the chosen settings are not
tuned again, and a sweep that grows tunes only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.bases.pin import PinnedBase
from pipelines.errors import TrainingError
from pipelines.recipe import Recipe, changed
from pipelines.store.store import Store
from pipelines.training.compute import Compute
from pipelines.training.launch import News
from pipelines.training.tuning import Told, job_for, split_folders, tune_jobs
from pipelines.training.warm import Start

Row = dict[str, Any]  # method, change, chosen; validation_accuracy, validation_loss, epoch or diverged_at; what it cost


def sweep(
    store: Store,
    recipe: Recipe,
    base: PinnedBase,
    base_folder: Path,
    shards: Mapping[str, str],
    compute: Compute,
    cache: Path,
    on_news: News,
    on_result: Told,
    start: Start | None = None,
) -> list[Row]:
    """The leaderboard of a recipe's sweep: a row per combination, best first, method by method.

    The arguments are those of `tuning.train_all`.

    Raises:
        RecipeError: prompt and text together are longer than the base's context.
        TrainingError: the workers failed, or every setting of a method diverged.
    """
    combinations = list(recipe.sweep.combinations()) if recipe.sweep else []
    folders = split_folders(store, shards, cache)
    jobs = [
        job_for(changed(recipe, method, change), method, base, base_folder, shards, folders, start).model_copy(
            update={"name": f"{method}-{number}", "may_diverge": True}
        )
        for number, (method, change) in enumerate(combinations, start=1)
    ]
    results = tune_jobs(store, jobs, base, base_folder, shards, compute, cache.parent / "work", on_news, on_result)
    rows = [_row(method, change, results[job.name]) for (method, change), job in zip(combinations, jobs, strict=True)]
    methods = list(dict.fromkeys(method for method, _ in combinations))
    of_each = [[row for row in rows if row["method"] == method] for method in methods]
    return [row for own in of_each for row in _ranked(own, by_loss=recipe.head.generates)]


def chosen(recipe: Recipe, leaderboard: Sequence[Row]) -> Recipe:
    """The recipe with the chosen settings in the place of what was swept; a chosen seed is the whole recipe's."""
    settled = recipe
    for row in leaderboard:
        if row["chosen"]:
            settled = changed(settled, row["method"], row["change"])
    return settled.model_copy(update={"sweep": None})


def _row(method: str, change: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    row: Row = {"method": method, "change": dict(change), "reused": result["reused"]}
    if "diverged_at" in result:
        return {**row, "diverged_at": result["diverged_at"]}
    kept = result["epochs"][result["kept_epoch"] - 1]
    row |= {key: kept[key] for key in ("validation_accuracy", "validation_loss", "epoch")}
    return {**row, "trainable_params": result["trainable_params"], "seconds": round(result["seconds"], 1)}


def _ranked(rows: Sequence[Row], by_loss: bool) -> list[Row]:
    """Best accuracy first, then the lower loss, then the grids' order, what diverged last; the first one is chosen.

    What writes texts is ranked `by_loss` alone.
    """
    ended = [row for row in rows if "diverged_at" not in row]
    if not ended:
        tried = "; ".join(str(row["change"]) for row in rows)
        raise TrainingError(
            f"Every setting of {rows[0]['method']} that was swept diverged: {tried}. Sweep lower rates."
        )
    ended.sort(key=lambda row: (0.0 if by_loss else -row["validation_accuracy"], row["validation_loss"]))
    lost = [row for row in rows if "diverged_at" in row]
    return [{**row, "chosen": row is ended[0]} for row in (*ended, *lost)]
