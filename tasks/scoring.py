"""Everything scored on the same held-out examples: the prompt, its baselines, and the reigning champion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from prefect import task

from pipelines.bases.pin import PinnedBase, base_record
from pipelines.errors import listed
from pipelines.evaluation.gates import NO_CHAMPION
from pipelines.promotion import ledger
from pipelines.recipe import Head, Recipe, Template
from pipelines.runs import finished
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
    """The reigning champion scored on the same examples, on its own base, where it answers the same labels.

    A run that was interrupted after its own promotion is compared with the champion before it, as it was then.
    """
    from pipelines.evaluation.scoring import Contender, score_all

    store = the_store()
    entries = ledger.read(the_ledger(), recipe.name)
    before = list(takewhile(lambda entry: entry.run_key != run_key or entry.action == "registered", entries))
    champion, sequence = ledger.state(before).champion, len(entries)
    if champion is None:
        return Reigning(None, NO_CHAMPION, sequence)
    of_champion = next(entry.run_key for entry in entries if entry.version == champion)
    record = finished(store, recipe.name, of_champion)
    if record is None:
        why_not = f"the store has no record of the champion's run (version {champion}), so there was no comparison"
        return Reigning(None, why_not, sequence)
    if record["labels"] != list(recipe.data.labels):
        others = f"the champion (version {champion}) answers other labels, {listed(record['labels'])}"
        return Reigning(None, f"{others}, so there was no comparison", sequence)
    tree = record["artifact"]
    card = json.loads((load_tree(store, tree, cache_folder()) / "prompt.json").read_bytes())
    base = base_record(store, card["base"]["digest"])
    head = Head(kind=card["head"]["kind"], words=card["head"]["words"])
    contender = Contender("champion", "prompt", tree, {}, head, recipe.data.labels)
    tokens = shards_of(recipe, Template(**card["template"]), base, test_tree)
    folder = load_checked_tree(store, base.digest, cache_folder())
    digests = score_all(
        store, [contender], base.digest, folder, tokens, compute, cache_folder(), StageProgress("score-champion")
    )
    return Reigning(digests["champion"], "", sequence)
