"""The verdict: every gate of the recipe, on the scores of one held-out set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefect import task

from pipelines.data.validate import load_slices, load_split
from pipelines.evaluation.floor import commonest
from pipelines.evaluation.gates import NO_CHAMPION
from pipelines.evaluation.gates import judge as judge_gates
from pipelines.evaluation.metrics import by_value, summary, text_summary
from pipelines.evaluation.scores import among, load_scores
from pipelines.evaluation.texts import load_texts
from pipelines.recipe import Recipe
from pipelines.settings import cache_folder
from pipelines.store.opening import the_store
from pipelines.store.trees import load_bytes
from pipelines.tokens.targets import input_name


@task(task_run_name="judge")
def judge(
    recipe: Recipe,
    scores: Mapping[str, str],
    trained: Mapping[str, Mapping[str, Any]],
    report_tree: str,
    no_champion: str = NO_CHAMPION,
    disturbed: Mapping[str, Mapping[str, Any]] | None = None,
    latency: Mapping[str, Any] | None = None,
    seen: str | None = None,
) -> dict[str, Any]:
    """`{verdict, reason, gates, scores, slices, commonest}`: the decision, and the tables that it rests on.

    `report_tree` is the data report's; `no_champion` says why `scores` has no champion's, where it has none;
    `disturbed` and `latency` are what `score_disturbed` and `measure_latency` found;
    `seen` names the examples that the champion learnt from: it is not compared on them.
    """
    store = the_store()
    slices = load_slices(store, report_tree, recipe.data, cache_folder())
    load: Any = load_texts if recipe.head.generates else load_scores
    loaded = {method: load(store, digest) for method, digest in scores.items()}
    if seen and (champion := loaded.get("champion")):
        learnt_from = _examples_of(recipe, report_tree, set(json.loads(load_bytes(store, seen))))
        loaded["champion"] = among(champion, set(champion.ids) - learnt_from)
    others = {
        gate: {method: load_scores(store, digest) for method, digest in found["scores"].items()}
        for gate, found in (disturbed or {}).items()
    }
    costs, labels = {**trained["prompt"], **(latency or {})}, recipe.data.labels
    verdict = judge_gates(recipe.gates, loaded, costs, recipe.seed, labels, no_champion, slices, others).to_json()
    table = {
        method: {
            **(text_summary(each, recipe.gates.metric) if recipe.gates.metric else summary(each)),
            **_size(method, trained),
        }
        for method, each in loaded.items()
    }
    counted = {column: by_value(loaded, values) for column, values in slices.items()}
    floor = {} if recipe.head.generates else {"commonest": commonest(loaded["prompt"], labels)}
    return {**verdict, **floor, "scores": table, "slices": counted}


def _size(method: str, trained: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a method took; nothing for an untouched base, unknown here for a champion, which another run trained."""
    if method in trained:
        of = trained[method]
        seconds = round(of["seconds"], 1)
        return {"trainable_params": of["trainable_params"], "artifact_bytes": of["artifact_bytes"],
                "train_seconds": seconds}  # fmt: skip
    return dict.fromkeys(("trainable_params", "artifact_bytes", "train_seconds"), None if method == "champion" else 0)


def _examples_of(recipe: Recipe, report_tree: str, ids: set[str]) -> set[str]:
    """What the scores call the examples that these test rows are of: of texts, their inputs."""
    if not recipe.head.generates:
        return ids
    rows = load_split(the_store(), report_tree, "test", cache_folder()).to_dict("records")
    return {input_name(row["text"], row.get("pair")) for row in rows if row["id"] in ids}
