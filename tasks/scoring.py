"""Everything scored on the same held-out examples: the prompt, its baselines, and the reigning champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import task

from pipelines.bases.pin import PinnedBase, base_record
from pipelines.evaluation.gates import NO_CHAMPION
from pipelines.promotion.champion import reigning
from pipelines.recipe import Head, Recipe, Template
from pipelines.settings import cache_folder
from pipelines.store.store import the_ledger, the_store
from pipelines.store.trees import load_checked_tree, load_tree
from pipelines.training.compute import Compute
from tasks.progress import StageProgress
from tasks.retrying import RETRYING
from tasks.tokens import shards as shards_of


@task(task_run_name="score", **RETRYING)
def score(
    recipe: Recipe,
    base: PinnedBase,
    shards: Mapping[str, str],
    trained: Mapping[str, Mapping[str, Any]],
    compute: Compute,
) -> dict[str, str]:
    """`{method: digest of its scores}` on the test split."""
    from pipelines.evaluation.scoring import Contender, score_all

    methods = {"prompt": recipe.prompt, **dict(recipe.baselines.named())}
    contenders = [
        Contender(name, name, trained[name]["tree"] if name in trained else None,
                  {} if name == "prompt" else settings.model_dump(mode="json"), recipe.head, recipe.data.labels)
        for name, settings in methods.items()
    ]  # fmt: skip
    store = the_store()
    folder = load_checked_tree(store, base.digest, cache_folder())
    progress = StageProgress("score")
    return score_all(store, contenders, base.digest, folder, shards["test"], compute, cache_folder(), progress)


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
    head = Head(kind=card["head"]["kind"], words=card["head"]["words"])
    contender = Contender("champion", "prompt", tree, {}, head, recipe.data.labels)
    tokens = shards_of(recipe, Template(**card["template"]), base, test_tree)
    folder = load_checked_tree(store, base.digest, cache_folder())
    digests = score_all(
        store, [contender], base.digest, folder, tokens, compute, cache_folder(), StageProgress("score-champion")
    )
    return Reigning(digests["champion"], "", champion.sequence)
