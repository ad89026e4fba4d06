"""A version minted again from what the store kept of it, and compared with it bit by bit.

The snapshot is checked, split and tokenised anew, and the prompt is trained anew on the same base: nothing that a stage
remembered is used. Equal bits need the same kernels: the same kind of processor or GPU, as many threads and workers,
and the same versions. What differs is told with the result.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.bases.pin import base_record
from pipelines.errors import RecipeError
from pipelines.prompts.provenance import versions
from pipelines.recipe import Baselines, Recipe
from pipelines.runs import finished
from pipelines.store.apart import Apart
from pipelines.store.local import LocalStore
from pipelines.store.store import Store
from pipelines.store.trees import load_checked_tree, load_tree
from pipelines.training.compute import Compute, load_compute
from pipelines.training.launch import News


@dataclass(frozen=True)
class Reproduction:
    """How a prompt that was minted again compares with the first one. Pairs are `(then, now)`."""

    prompt_digest: str
    reproduced_digest: str
    card: dict[str, tuple[Any, Any]]  # keys of prompt.json with other values
    tensors: dict[str, float | None]  # tensors with other bits: the largest difference; None: of another shape
    machine: dict[str, tuple[Any, Any]]
    versions: dict[str, tuple[Any, Any]]
    seconds: float  # of the training

    @property
    def equal(self) -> bool:
        """Whether the two are the same, bit by bit."""
        return self.prompt_digest == self.reproduced_digest


def reproduce(
    store: Store, artifact: Path, digest: str, compute: Compute | None, work: Path, cache: Path, on_news: News
) -> Reproduction:
    """A prompt minted again, compared with itself.

    Args:
        store: holds its snapshot and its base.
        artifact: the folder of its whole artifact; `digest` is the one that its identity must have.
        compute: where to train; None: with as many workers and threads as the first time, where that is known.
        work: a folder for what comes into being, removed in the end.
        cache: for the base.
        on_news: called with each line of the worker's progress.

    Raises:
        ArtifactError: the artifact is damaged.
        RecipeError: its recipe is not known, or this version of promptmint reads recipes differently.
        NotInStore: the store has lost the snapshot or the base.
        TrainingError: the workers failed.
    """
    from pipelines.data.validate import validate
    from pipelines.prompts.artifact import read_prompt
    from pipelines.tokens.encode import tokenize
    from pipelines.training.tuning import train_all
    from pipelines.training.warm import load_start

    then = read_prompt(artifact, digest)
    origin = json.loads((artifact / "provenance.json").read_bytes())
    recipe = _recipe(store, then.card, origin).model_copy(update={"baselines": Baselines()})
    base = replace(base_record(store, then.card["base"]["digest"]), name=then.card["base"]["name"])
    machine = origin.get("machine") or {}
    as_then = {key: machine[key] for key in ("workers", "threads") if key in machine}
    compute = compute or load_compute().model_copy(update=as_then)
    base_folder = load_checked_tree(store, base.digest, cache)
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reproduce-", dir=work) as name:
        apart, scratch = Apart(store, LocalStore(Path(name) / "store")), Path(name) / "cache"
        splits = validate(apart, origin["data_digest"], recipe.data, scratch)["split_trees"]
        labels, template = recipe.data.labels, recipe.template
        shards = {
            split: tokenize(
                apart, splits[split], base_folder, base.digest, template, labels, scratch, recipe.head.max_new_tokens
            )["tree"]
            for split in ("train", "validation")
        }  # fmt: skip
        start = load_start(store, origin["start"], cache) if "start" in then.card else None
        trained = train_all(
            apart, recipe, base, base_folder, shards, compute, scratch, on_news, lambda name, reused: None, start=start
        )["prompt"]
        now = read_prompt(load_tree(apart, trained["tree"], scratch))
    return Reproduction(
        then.digest, now.digest, _differing(then.card, now.card),
        _tensors_differing({**then.tensors, **_head(then.head)}, {**now.tensors, **_head(now.head)}),
        _differing(machine, trained["machine"]), _differing(origin["versions"], versions()), trained["seconds"],
    )  # fmt: skip


def _recipe(store: Store, card: Mapping[str, Any], origin: Mapping[str, Any]) -> Recipe:
    """The recipe that a prompt was minted by: from its provenance, or from its run's record where that is older."""
    settings = origin.get("recipe")
    if settings is None and (record := finished(store, card["recipe"]["name"], origin["run_key"])):
        settings = record["settings"]
    if settings is None:
        raise RecipeError(
            f"Nothing says by which recipe the prompt {origin['prompt_digest']} was minted: its provenance is older "
            f"than that, and {store.uri} has no record of its run {origin['run_key']}. Run its recipe file instead."
        )
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(
            f"This promptmint cannot read the recipe of the prompt {origin['prompt_digest']}: {error}. It was minted "
            f"by promptmint {origin['versions']['promptmint']}: reproduce it with that one."
        ) from None


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`{key: (then, now)}` of what is not equal."""
    keys = sorted({*then, *now})
    return {key: (then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)}


def _tensors_differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float | None]:
    """The tensors whose bits differ, each with the largest difference of a number in it."""
    found: dict[str, float | None] = {}
    for name in sorted({*then, *now}):
        a, b = then.get(name), now.get(name)
        if a is None or b is None or a.shape != b.shape:
            found[name] = None
        elif not a.equal(b):
            found[name] = float((a.double() - b.double()).abs().max())
    return found


def _head(head: Mapping[str, Any]) -> dict[str, Any]:
    return {f"head.{name}": tensor for name, tensor in head.items()}
