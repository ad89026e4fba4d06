"""Every method of a recipe tuned, each once: what the store knows is taken from there, the rest goes to the workers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.bases.pin import PinnedBase
from pipelines.digests import digest_json
from pipelines.errors import RecipeError, TrainingError
from pipelines.memo import Stage, recall, remember
from pipelines.recipe import Recipe
from pipelines.settings import activations_folder
from pipelines.store.store import Store
from pipelines.store.trees import load_tree, save_tree
from pipelines.training.compute import Compute
from pipelines.training.job import TrainJob
from pipelines.training.launch import News, launch, remove_left
from pipelines.training.warm import Start, misfit

STAGE = Stage("train", 9)
ABANDONED_S = 14 * 24 * 3600  # checkpoints that nobody has gone on from for so long are given up

Told = Callable[[str, bool], None]  # a method's name, and whether it came from the store


def train_all(
    store: Store,
    recipe: Recipe,
    base: PinnedBase,
    base_folder: Path,
    shards: Mapping[str, str],
    compute: Compute,
    cache: Path,
    on_news: News,
    on_result: Told,
    kept: Mapping[str, dict[str, Any]] | None = None,
    start: Start | None = None,
) -> dict[str, dict[str, Any]]:
    """Every method of a recipe, tuned: `{method: what tune_jobs gives}`.

    Args:
        store: keeps the weights.
        recipe: says which methods, and how.
        base: the frozen base; `base_folder` holds its files.
        shards: trees of the `train` and `validation` splits.
        compute: where to run.
        cache: for the shards.
        on_news: called with each line of a worker's progress.
        on_result: called once per method.
        kept: what earlier runs on other data gave of some methods, taken in the place of a training (see `kept.py`).
        start: what the prompt may start from; where it does not fit, or there is none, `prompt.init` says.

    Raises:
        RecipeError: prompt and text together are longer than the base's context.
        TrainingError: the workers failed, or a training diverged.
    """
    folders = split_folders(store, shards, cache)
    jobs = [
        job_for(recipe, method, base, base_folder, shards, folders, start)
        for method in ("prompt", *trained_baselines(recipe))
    ]
    scratch = cache.parent / "work"
    results = tune_jobs(store, jobs, base, base_folder, shards, compute, scratch, on_news, on_result, kept)
    for method, result in results.items():
        if "diverged_at" in result:
            raise TrainingError(
                f"{method} diverged at step {result['diverged_at']} when a sweep tuned it with these settings, and the "
                f"same inputs do so again. Lower its rate, or set training.precision = 'fp32'."
            )
    return results


def tune_jobs(
    store: Store,
    jobs: Sequence[TrainJob],
    base: PinnedBase,
    base_folder: Path,
    shards: Mapping[str, str],
    compute: Compute,
    scratch: Path,
    on_news: News,
    on_result: Told,
    kept: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """`{job: {tree, trainable_params, artifact_bytes, seconds, kept_epoch, epochs, curve, trained_at, reused, kept}}`.

    Each finished job is kept at once, and one that is interrupted goes on from its checkpoint the next time. A job that
    diverged, where it may, gives `{job: {diverged_at, seconds, reused}}`. What is not known of these very data is taken
    from `kept` where it is there.
    """
    results: dict[str, dict[str, Any]] = {}
    missing: dict[str, tuple[TrainJob, dict[str, Any]]] = {}
    for job in jobs:
        inputs = _inputs(job, base, shards)
        checkpoints = scratch / "checkpoints" / Path(STAGE.key(inputs)).stem
        if known := recall(store, STAGE, inputs):
            results[job.name] = {**known.value, "reused": True, "kept": False}
            _forget(checkpoints)
            on_result(job.name, True)
        elif kept and job.name in kept:
            results[job.name] = {**kept[job.name], "reused": True, "kept": True}
            on_result(job.name, True)
        else:
            folders = {"checkpoints": checkpoints, "activations": activations_folder(scratch.parent)}
            missing[job.name] = (job.model_copy(update=folders), inputs)

    def keep(name: str, folder: Path) -> None:
        job, inputs = missing[name]
        value = _kept(store, folder)
        remember(store, STAGE, inputs, value, value["seconds"])
        if job.checkpoints:
            _forget(job.checkpoints)
        results[name] = {**value, "reused": False, "kept": False}
        on_result(name, False)

    remove_left(scratch)
    if missing:
        launch(base_folder, [job for job, _ in missing.values()], compute, on_news, keep, scratch)
    return results


def minting_digest(recipe: Recipe) -> str:
    """What of a recipe decides the prompt itself; gates, baselines and places do not."""
    parts = recipe.model_dump(mode="json", include={"seed", "template", "head", "training", "prompt"})
    return digest_json({**parts, "labels": list(recipe.data.labels)})


def job_for(
    recipe: Recipe,
    method: str,
    base: PinnedBase,
    base_folder: Path,
    shards: Mapping[str, str],
    folders: Mapping[str, Path],
    start: Start | None = None,
) -> TrainJob:
    """One method of a recipe, to be tuned; of the prompt also what its artifact says of its origin.

    `folders` are those of `split_folders`; `start` is what the prompt may start from.

    Raises:
        RecipeError: prompt and text together are longer than the base's context.
    """
    if method == "prompt":
        _check_room(recipe, base_folder)
    settings = recipe.prompt if method == "prompt" else getattr(recipe.baselines, method)
    card = {
        "base": base.card(),
        "data": {split: shards[split] for split in ("train", "validation")},
        "recipe": {"name": recipe.name, "digest": minting_digest(recipe)},
        "template": recipe.template.model_dump(mode="json"),
    }
    warm = start if start and method == "prompt" and not misfit(start.card, recipe) else None
    if warm:
        card["start"] = warm.prompt
    return TrainJob(
        name=method, kind=method, settings=settings.model_dump(mode="json"), shared=recipe.training, head=recipe.head,
        labels=recipe.data.labels, seed=recipe.seed, card=card if method == "prompt" else {},
        start=warm.folder if warm else None, **folders,
    )  # fmt: skip


def trained_baselines(recipe: Recipe) -> list[str]:
    """The recipe's baselines that are trained."""
    return [name for name, _ in recipe.baselines.named() if name != "zero_shot"]


def split_folders(store: Store, shards: Mapping[str, str], cache: Path) -> dict[str, Path]:
    """The folders of the shards that a training reads, by split."""
    return {split: load_tree(store, shards[split], cache) for split in ("train", "validation")}


def _check_room(recipe: Recipe, base_folder: Path) -> None:
    """Refuse a recipe whose longest text does not fit behind its prompt, with what a decoder writes after it."""
    from transformers import AutoConfig

    from pipelines.inference.base import context_of

    config = AutoConfig.from_pretrained(base_folder)
    context = context_of(config)
    parts = {"prompt.tokens": recipe.prompt.tokens, "template.max_tokens": recipe.template.max_tokens}
    if recipe.head.max_new_tokens and not config.is_encoder_decoder:
        parts["head.max_new_tokens"] = recipe.head.max_new_tokens
    if context is not None and sum(parts.values()) > context:
        *others, last = (f"{key} = {value}" for key, value in parts.items())
        raise RecipeError(
            f"{', '.join(others)} and {last} make {sum(parts.values())} positions, but the base "
            f"{recipe.base.name!r} reads {context}. Lower one of them."
        )


def _inputs(job: TrainJob, base: PinnedBase, shards: Mapping[str, str]) -> dict[str, Any]:
    """What the result of a training depends on: the job, with digests in the place of folders."""
    places = {"train", "validation", "start", "checkpoints", "activations"}
    asked = job.model_dump(mode="json", exclude={*places, "name", "may_diverge"})
    return {**asked, "base": base.digest, "shards": {split: shards[split] for split in ("train", "validation")}}


def _kept(store: Store, folder: Path) -> dict[str, Any]:
    """What a finished job left, its folder now in the store."""
    result = json.loads((folder / "result.json").read_bytes())
    if "diverged_at" in result:
        return dict(result)
    (folder / "result.json").unlink()
    size = sum(path.stat().st_size for path in folder.iterdir())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**result, "tree": save_tree(store, folder), "artifact_bytes": size, "trained_at": now}


def _forget(checkpoints: Path) -> None:
    """Remove the checkpoints of one training, and those beside them that were given up."""
    shutil.rmtree(checkpoints, ignore_errors=True)
    with suppress(OSError):
        for other in checkpoints.parent.iterdir():
            if time.time() - other.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(other, ignore_errors=True)
        checkpoints.parent.rmdir()  # unless it holds others
