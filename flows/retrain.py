"""Retrain a recipe: from the data as they are now to a registered, perhaps promoted, soft prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from pipelines.data.drift import all_seen
from pipelines.data.drift import refusal as drift_refusal
from pipelines.errors import LedgerConflict
from pipelines.evaluation.power import foresee, low, refusal
from pipelines.known import find_recipe
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finish, finished, new_record, run_key, unchanged
from pipelines.settings import recipes_folder
from pipelines.store.store import the_store
from pipelines.training.compute import Compute, load_compute
from pipelines.training.leaderboard import chosen
from tasks.bases import pin_base
from tasks.data import snapshot, validate
from tasks.drifting import drift, seen_by_champion
from tasks.gating import judge
from tasks.limits import no_longer_than, one_of
from tasks.progress import News, tell
from tasks.registering import complete_artifact, project_aliases, promote_version, register
from tasks.reporting import publish, publish_unchanged
from tasks.scoring import measure_latency, score, score_champion, score_disturbed
from tasks.tokens import tokenize
from tasks.training import sweep, train


@flow(name="retrain", flow_run_name="{recipe}", persist_result=False)
def retrain(recipe: str, compute: str | None = None) -> dict[str, Any]:
    """Tune, prove and register the soft prompt of a known recipe; equal inputs end at once as unchanged.

    Runs of one recipe follow each other, whoever started them. Runs of different recipes share the machine as its
    compute profile says.

    Args:
        recipe: Name of the recipe, as its file in the folder `recipes/` gives it. A path is refused.
        compute: Path of a compute profile. None: what PROMPTMINT_COMPUTE names on the worker, or one process on
            whatever is there.
    """
    path = find_recipe(recipe, recipes_folder())
    if earlier := unchanged(the_store(), load_recipe(path)):  # asked before there is anything to wait for
        return _again(earlier)
    return mint.fn(str(path), compute)


@flow(name="mint", flow_run_name="{recipe}", persist_result=False)
def mint(recipe: str, compute: str | None = None) -> dict[str, Any]:
    """Tune, prove and register the soft prompt of a recipe; equal inputs end at once as unchanged.

    Args:
        recipe: Path of the recipe's TOML file.
        compute: Path of a compute profile. None: PROMPTMINT_COMPUTE, or one worker on whatever is there.
    """
    settings, profile = load_recipe(recipe), load_compute(compute)
    with (
        one_of(1, f"promptmint-recipe-{settings.name}"),
        one_of(profile.jobs, f"promptmint-compute-{profile.name}"),
        no_longer_than(profile.run_timeout_s),
    ):
        return _mint(settings, profile)


def _mint(settings: Recipe, compute: Compute) -> dict[str, Any]:
    """The run's record, from the data as they are now to a registered, perhaps promoted, prompt."""
    seconds: dict[str, float] = {}

    with _timed(seconds, "pin base"):
        base = pin_base(settings)
    with _timed(seconds, "snapshot"):
        data = snapshot(settings)

    key = run_key(settings, base.digest, data)
    if earlier := finished(the_store(), settings.name, key):
        return _again({**earlier, "unchanged": True})
    record = new_record(settings, key, base.digest, data)

    with _timed(seconds, "validate"):
        report = validate(settings, data)
    record["data"] = report
    if not report["ok"]:
        return _end(record, seconds, verdict="refused", reason=f"refused: {'; '.join(report['problems'])}")

    record["power"] = foresee(settings.gates, report["splits"]["test"])
    if why := refusal(settings.gates, record["power"]):
        return _end(record, seconds, verdict="refused", reason=f"refused: {why}")
    if weak := low(record["power"]):
        others = (each["gate"].removeprefix("non-inferior to ") for each in weak)
        tell(News("validate", f"low power against {', '.join(others)}"))

    seen = record["seen_by_champion"] = seen_by_champion(settings, key, report["split_trees"])
    if why := all_seen(seen, settings.gates):
        return _end(record, seconds, verdict="refused", reason=f"refused: {why}")

    with _timed(seconds, "tokenize"):
        shards = tokenize(settings, base, report)
    if settings.drift:
        with _timed(seconds, "drift"):
            record["drift"] = drift(settings, base, key, report["split_trees"], compute)
        if why := drift_refusal(record["drift"]):
            return _end(record, seconds, verdict="refused", reason=f"refused: {why}")
    if settings.sweep:
        with _timed(seconds, "sweep"):
            record["leaderboard"] = sweep(settings, base, shards, compute)
        settings = chosen(settings, record["leaderboard"])
    with _timed(seconds, "train"):
        trained = train(settings, base, shards, compute)
    with _timed(seconds, "score"):
        scores = score(settings, base, shards, trained, compute)
        reigning = score_champion(settings, key, report["split_trees"]["test"], compute)
        if reigning.scores:
            scores["champion"] = reigning.scores
        more: dict[str, dict[str, Any]] = {}  # what only some recipes ask for
        if settings.gates.robust:
            more["disturbed"] = score_disturbed(settings, base, report["split_trees"]["test"], trained, compute)
        if settings.gates.budgets.added_latency_ms is not None:
            more["latency"] = measure_latency(settings, base, trained, compute)
    with _timed(seconds, "judge"):
        seen_ids = seen["ids"] if seen else None
        verdict = judge(settings, scores, trained, report["tree"], reigning.why_not, seen=seen_ids, **more)

    record["scores"] |= verdict.pop("scores")
    record |= {"score_digests": scores, **more}
    record |= verdict | {"trained": trained, "prompt_digest": trained["prompt"]["prompt_digest"]}
    with _timed(seconds, "register"):
        record["artifact"] = complete_artifact(trained["prompt"]["tree"], settings, base, record)
        record["version"] = register(record)
        if settings.promotion.policy == "automatic" and record["verdict"] == "passed":
            try:
                promote_version(
                    settings.name, record["version"], "promptmint", record["reason"], expected=reigning.sequence
                )
            except LedgerConflict as lost:  # another champion than the one it was compared with: a person decides
                record["not_promoted"] = str(lost)
        record["aliases"] = project_aliases(settings.name)
    return _end(record, seconds)


def _again(earlier: dict[str, Any]) -> dict[str, Any]:
    """The earlier run's record; its report is one click away."""
    publish_unchanged(earlier)
    return earlier


def _end(record: dict[str, Any], seconds: dict[str, float], **last: str) -> dict[str, Any]:
    """The run's record, published and written down."""
    record |= last | {"seconds": {stage: round(spent, 2) for stage, spent in seconds.items()}}
    record |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "flow_run": flow_run.id}
    publish(record)
    finish(the_store(), record)
    return record


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Say that a stage begins, and write down how long it took."""
    tell(News(stage, ""))
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
