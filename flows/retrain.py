"""Retrain a recipe: from the data as they are now to a registered, perhaps promoted, soft prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from pipelines.costs import Meter
from pipelines.data.drift import all_seen
from pipelines.data.drift import refusal as drift_refusal
from pipelines.errors import LedgerConflict
from pipelines.evaluation.power import foresee, low, refusal
from pipelines.known import find_recipe
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finish, finished, new_record, next_number, run_key, unchanged
from pipelines.settings import recipes_folder
from pipelines.store.store import the_store
from pipelines.training.compute import Compute, load_compute
from pipelines.training.kept import drifted, lineages
from pipelines.training.leaderboard import chosen
from pipelines.training.warm import Begun
from tasks.bases import pin_base
from tasks.data import snapshot, validate
from tasks.drifting import drift, seen_by_champion
from tasks.gating import judge
from tasks.limits import no_longer_than, one_of, turn_of
from tasks.progress import News, tell
from tasks.registering import complete_artifact, project_aliases, promote_version, register
from tasks.reporting import publish, publish_unchanged
from tasks.scoring import measure_latency, score, score_champion, score_disturbed
from tasks.tokens import tokenize
from tasks.training import begin, keep, sweep, train


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
        one_of(1, turn_of(settings.name)),
        one_of(profile.jobs, f"promptmint-compute-{profile.name}"),
        no_longer_than(profile.run_timeout_s),
    ):
        return _mint(settings, profile)


def _mint(settings: Recipe, compute: Compute) -> dict[str, Any]:
    """The run's record, from the data as they are now to a registered, perhaps promoted, prompt."""
    spent = Meter(compute.core_watts, compute.gpu_watts)

    with _timed(spent, "pin base"):
        base = pin_base(settings)
    with _timed(spent, "snapshot"):
        data = snapshot(settings)

    key = run_key(settings, base.digest, data)
    if earlier := finished(the_store(), settings.name, key):
        return _again({**earlier, "unchanged": True})
    record = new_record(settings, key, base.digest, data)

    with _timed(spent, "validate"):
        report = validate(settings, data)
    record["data"] = report
    if not report["ok"]:
        return _end(record, spent, verdict="refused", reason=f"refused: {'; '.join(report['problems'])}")

    record["power"] = foresee(settings.gates, report["splits"]["test"])
    if why := refusal(settings.gates, record["power"]):
        return _end(record, spent, verdict="refused", reason=f"refused: {why}")
    if weak := low(record["power"]):
        others = (each["gate"].removeprefix("non-inferior to ") for each in weak)
        tell(News("validate", f"low power against {', '.join(others)}"))

    seen = record["seen_by_champion"] = seen_by_champion(settings, key, report["split_trees"])
    if why := all_seen(seen, settings.gates):
        return _end(record, spent, verdict="refused", reason=f"refused: {why}")

    with _timed(spent, "tokenize"):
        shards = tokenize(settings, base, report)
    if settings.drift:
        with _timed(spent, "drift"):
            record["drift"] = drift(settings, base, key, report["split_trees"], compute)
        if why := drift_refusal(record["drift"]):
            return _end(record, spent, verdict="refused", reason=f"refused: {why}")
    begun = begin(settings, base, key, report["split_trees"]) if settings.prompt.warm_start else Begun(None)
    if settings.sweep:
        with _timed(spent, "sweep"):
            record["leaderboard"] = sweep(settings, base, shards, compute, begun.start)
        settings = chosen(settings, record["leaderboard"])
    with _timed(spent, "train"):
        kept = keep(settings, base, report["split_trees"], drifted(record.get("drift")))
        trained = train(settings, base, shards, compute, kept, begun.start)
    if settings.prompt.warm_start:
        record["start"] = begun.told(settings)
    now = datetime.now(UTC)
    record["baselines"] = lineages(settings, base.digest, key, report["split_trees"], kept, trained, now)
    with _timed(spent, "score"):
        scores = score(settings, base, shards, trained, compute)
        reigning = score_champion(settings, key, report["split_trees"]["test"], compute)
        if reigning.scores:
            scores["champion"] = reigning.scores
        more: dict[str, dict[str, Any]] = {}  # what only some recipes ask for
        if settings.gates.robust:
            more["disturbed"] = score_disturbed(settings, base, report["split_trees"]["test"], trained, compute)
        if settings.gates.budgets.added_latency_ms is not None:
            more["latency"] = measure_latency(settings, base, trained, compute)
    with _timed(spent, "judge"):
        seen_ids = seen["ids"] if seen else None
        verdict = judge(settings, scores, trained, report["tree"], reigning.why_not, seen=seen_ids, **more)

    record["scores"] |= verdict.pop("scores")
    record |= {"score_digests": scores, **more}
    record |= verdict | {"trained": trained, "prompt_digest": trained["prompt"]["prompt_digest"]}
    with _timed(spent, "register"):
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
    return _end(record, spent)


def _again(earlier: dict[str, Any]) -> dict[str, Any]:
    """The earlier run's record; its report is one click away."""
    publish_unchanged(earlier)
    return earlier


def _end(record: dict[str, Any], spent: Meter, **last: str) -> dict[str, Any]:
    """The run's record, published and written down."""
    record |= last | {"seconds": {stage: round(cost.seconds, 2) for stage, cost in spent.stages.items()}}
    record["cost"] = spent.told()
    record |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "flow_run": flow_run.id}
    record["number"] = next_number(the_store(), record["recipe"])
    publish(record)
    finish(the_store(), record)
    return record


@contextmanager
def _timed(spent: Meter, stage: str) -> Iterator[None]:
    """Say that a stage begins, and write down what it cost."""
    tell(News(stage, ""))
    with spent.stage(stage):
        yield
