"""Everything scored on the same held-out examples: the prompt, its baselines, and the reigning champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import task

from pipelines.bases.pin import PinnedBase, base_record
from pipelines.evaluation.comparisons import claim_of_robustness
from pipelines.evaluation.gates import NO_CHAMPION
from pipelines.memo import once
from pipelines.promotion.champion import reigning
from pipelines.recipe import Head, Recipe, Template
from pipelines.settings import cache_folder
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.trees import load_checked_tree, load_tree
from pipelines.training.compute import Compute
from tasks.progress import StageProgress
from tasks.retrying import RETRYING
from tasks.tokens import encoded

if TYPE_CHECKING:
    from pipelines.evaluation.scoring import Contender


@task(task_run_name="score", **RETRYING)
def score(
    recipe: Recipe,
    base: PinnedBase,
    shards: Mapping[str, str],
    trained: Mapping[str, Mapping[str, Any]],
    compute: Compute,
) -> dict[str, str]:
    """`{method: digest of its scores}` on the test split."""
    from pipelines.evaluation.scoring import score_all

    contenders = [_contender(recipe, name, trained) for name in ("prompt", *dict(recipe.baselines.named()))]
    store = the_store()
    folder = load_checked_tree(store, base.digest, cache_folder())
    progress = StageProgress("score")
    return score_all(store, contenders, base.digest, folder, shards["test"], compute, cache_folder(), progress)


@task(task_run_name="score disturbed", **RETRYING)
def score_disturbed(
    recipe: Recipe, base: PinnedBase, test_tree: str, trained: Mapping[str, Mapping[str, Any]], compute: Compute
) -> dict[str, dict[str, Any]]:
    """`{gate: {changed, scores}}` of every gate on disturbed texts: how many differ, and `{method: digest}` on them."""
    from pipelines.data.disturb import STAGE, disturb_split
    from pipelines.evaluation.scoring import score_all

    store, cache = the_store(), cache_folder()
    found: dict[str, dict[str, Any]] = {}
    asked: list[tuple[str, str, Contender]] = []
    for gate in recipe.gates.robust:
        inputs = {"split": test_tree, "kind": gate.to, "rate": gate.rate, "seed": recipe.seed}
        made = once(
            store, STAGE, inputs, partial(disturb_split, store, test_tree, gate.to, gate.rate, recipe.seed, cache)
        )
        tokens = encoded(recipe, recipe.template, base, made.value["tree"])["tree"]
        name = claim_of_robustness(gate).name
        found[name] = {"changed": made.value["changed"], "scores": {}}
        for method in filter(None, ("prompt", gate.beside)):
            contender = replace(_contender(recipe, method, trained), name=f"{method}-{len(asked)}", shards=tokens)
            asked.append((name, method, contender))
    folder = load_checked_tree(store, base.digest, cache)
    contenders, progress = [contender for *_, contender in asked], StageProgress("score")
    digests = score_all(store, contenders, base.digest, folder, "", compute, cache, progress)
    for name, method, contender in asked:
        found[name]["scores"][method] = digests[contender.name]
    return found


@task(task_run_name="measure latency", **RETRYING)
def measure_latency(
    recipe: Recipe, base: PinnedBase, trained: Mapping[str, Mapping[str, Any]], compute: Compute
) -> dict[str, Any]:
    """What the prompt adds to the time of an answer, in this run on this machine."""
    from pipelines.evaluation.latency import added_latency

    store, cache = the_store(), cache_folder()
    folder, progress = load_checked_tree(store, base.digest, cache), StageProgress("score")
    tokens = recipe.gates.budgets.latency_tokens
    return added_latency(store, trained["prompt"]["tree"], folder, tokens, compute, cache, progress)


def _contender(recipe: Recipe, method: str, trained: Mapping[str, Mapping[str, Any]]) -> Contender:
    """A method of the recipe as it was trained."""
    from pipelines.evaluation.scoring import Contender

    tree = trained[method]["tree"] if method in trained else None
    settings = {} if method == "prompt" else getattr(recipe.baselines, method).model_dump(mode="json")
    return Contender(method, method, tree, settings, recipe.head, recipe.data.labels)


@dataclass(frozen=True)
class Reigning:
    """What a new prompt is compared with: the digest of the champion's scores, or why there are none."""

    scores: str | None
    why_not: str
    sequence: int  # of the ledger's last entry when it was read: a promotion is decided on that


@task(task_run_name="score champion", **RETRYING)
def score_champion(recipe: Recipe, run_key: str, test_tree: str, compute: Compute) -> Reigning:
    """The reigning champion scored on the same examples, on its own base, where it answers the same labels."""
    from pipelines.evaluation.scoring import Contender, score_all

    store = the_store()
    champion = reigning(store, the_ledger(), recipe.name, run_key)
    if champion.version is None:
        return Reigning(None, NO_CHAMPION, champion.sequence)
    if champion.record is None:
        return Reigning(None, champion.lost, champion.sequence)
    if why_not := champion.of_others(recipe.data.labels):
        return Reigning(None, why_not, champion.sequence)
    tree = champion.record["artifact"]
    card = json.loads((load_tree(store, tree, cache_folder()) / "prompt.json").read_bytes())
    base = base_record(store, card["base"]["digest"])
    head = Head(**{key: card["head"][key] for key in Head.model_fields if key in card["head"]})
    contender = Contender("champion", "prompt", tree, {}, head, recipe.data.labels)
    tokens = encoded(recipe, Template(**card["template"]), base, test_tree)["tree"]
    folder = load_checked_tree(store, base.digest, cache_folder())
    digests = score_all(
        store, [contender], base.digest, folder, tokens, compute, cache_folder(), StageProgress("score-champion")
    )
    return Reigning(digests["champion"], "", champion.sequence)
