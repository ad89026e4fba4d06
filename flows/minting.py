"""The phases of a run that has something to do: the data are checked, a prompt is tuned, judged and entered.

Each phase writes what it found into the run's record, and hands on what the next one needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect.runtime import flow_run

from pipelines import runs
from pipelines.bases.pin import PinnedBase
from pipelines.costs import Meter
from pipelines.data.drift import all_seen
from pipelines.data.drift import refusal as drift_refusal
from pipelines.errors import LedgerConflict
from pipelines.evaluation.power import foresee, low
from pipelines.evaluation.power import refusal as power_refusal
from pipelines.recipe import Recipe
from pipelines.store.opening import the_store
from pipelines.training.compute import Compute
from pipelines.training.kept import drifted, lineages
from pipelines.training.leaderboard import chosen
from pipelines.training.warm import Begun
from tasks import gating, training
from tasks.data import validate
from tasks.drifting import drift, seen_by_champion
from tasks.progress import News, tell
from tasks.registering import complete_artifact, project_aliases, promote_version, register
from tasks.reporting import publish
from tasks.scoring import Reigning, measure_latency, score, score_champion, score_disturbed
from tasks.tokens import tokenize


class Refused(Exception):
    """What the run was given is not to be learnt from; the reason is for its record."""


@dataclass
class Run:
    """What a run stands on, and its record so far."""

    recipe: Recipe
    compute: Compute
    base: PinnedBase
    data: str  # the snapshot's digest
    key: str  # of recipe, base and data: what the run is named by
    spent: Meter
    record: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.record = runs.new_record(self.recipe, self.key, self.base.digest, self.data)


@dataclass(frozen=True)
class Checked:
    """Data that may be learnt from."""

    report: str  # digest of the data report's tree
    splits: Mapping[str, str]  # digests of the trees of rows
    shards: dict[str, str]  # digests of the trees of their tokens
    seen: str | None  # digest of the examples that the champion learnt from


@dataclass(frozen=True)
class Tuned:
    """A prompt and its baselines."""

    recipe: Recipe  # with what a sweep chose
    trained: dict[str, dict[str, Any]]  # of each method: its tree, its size, what it took


def check(run: Run) -> Checked:
    """Whether the data are sound, can decide the gates, and are still what the champion knew.

    Raises:
        Refused: they are not.
    """
    recipe, record = run.recipe, run.record
    with timed(run.spent, "validate"):
        report = record["data"] = validate(recipe, run.data)
    _refuse("; ".join(report["problems"]) if not report["ok"] else None)

    record["power"] = foresee(recipe.gates, report["splits"]["test"])
    _refuse(power_refusal(recipe.gates, record["power"]))
    if weak := low(record["power"]):
        others = (each["gate"].removeprefix("non-inferior to ") for each in weak)
        tell(News("validate", f"low power against {', '.join(others)}"))

    splits = report["split_trees"]
    seen = record["seen_by_champion"] = seen_by_champion(recipe, run.key, splits)
    _refuse(all_seen(seen, recipe.gates))

    with timed(run.spent, "tokenize"):
        encoded = record["tokens"] = tokenize(recipe, run.base, report)
    if cut := sum(each["truncated"] + each["targets_cut"] for each in encoded.values()):
        tell(News("tokenize", f"{cut:,} texts lost their end"))
    if recipe.drift:
        with timed(run.spent, "drift"):
            record["drift"] = drift(recipe, run.base, run.key, splits, run.compute)
        _refuse(drift_refusal(record["drift"]))
    shards = {split: each["tree"] for split, each in encoded.items()}
    return Checked(report["tree"], splits, shards, seen["ids"] if seen else None)


def train(run: Run, checked: Checked) -> Tuned:
    """The prompt and its baselines, at the settings that a sweep chose where the recipe has one."""
    recipe, base, compute, record = run.recipe, run.base, run.compute, run.record
    warm = recipe.starts_warm
    begun = training.begin(recipe, base, run.key, checked.splits) if warm else Begun(None)
    if recipe.sweep:
        with timed(run.spent, "sweep"):
            record["leaderboard"] = training.sweep(recipe, base, checked.shards, compute, begun.start)
        recipe = chosen(recipe, record["leaderboard"])
    with timed(run.spent, "train"):
        kept = training.keep(recipe, base, checked.splits, drifted(record.get("drift")))
        trained = training.train(recipe, base, checked.shards, compute, kept, begun.start)
    if warm:
        record["start"] = begun.told(recipe)
    now = datetime.now(UTC)
    record["baselines"] = lineages(recipe, base.digest, run.key, checked.splits, kept, trained, now)
    record |= {"trained": trained, "prompt_digest": trained["prompt"]["prompt_digest"]}
    return Tuned(recipe, trained)


def judge(run: Run, checked: Checked, tuned: Tuned) -> Reigning:
    """Score all of them on the test split and ask the gates; the champion that it was compared with."""
    recipe, trained, base, compute = tuned.recipe, tuned.trained, run.base, run.compute
    test = checked.splits["test"]
    more: dict[str, dict[str, Any]] = {}  # what only some recipes ask for
    with timed(run.spent, "score"):
        scores = score(recipe, base, checked.shards, trained, compute)
        reigning = score_champion(recipe, run.key, test, compute)
        if reigning.scores:
            scores["champion"] = reigning.scores
        if recipe.gates.robust:
            more["disturbed"] = score_disturbed(recipe, base, test, trained, compute)
        if recipe.gates.budgets.added_latency_ms is not None:
            more["latency"] = measure_latency(recipe, base, trained, compute)
    with timed(run.spent, "judge"):
        verdict = gating.judge(recipe, scores, trained, checked.report, reigning.why_not, seen=checked.seen, **more)
    run.record["scores"] |= verdict.pop("scores")
    run.record |= {"score_digests": scores, **more, **verdict}
    return reigning


def enter(run: Run, tuned: Tuned, reigning: Reigning) -> None:
    """Complete the artifact and register it; promote it where the recipe says so and nobody was faster."""
    recipe, record = tuned.recipe, run.record
    with timed(run.spent, "register"):
        record["artifact"] = complete_artifact(tuned.trained["prompt"]["tree"], recipe, run.base, record)
        record["version"] = register(record)
        if recipe.promotion.policy == "automatic" and record["verdict"] == "passed":
            try:
                promote_version(
                    recipe.name, record["version"], "promptmint", record["reason"], expected=reigning.sequence
                )
            except LedgerConflict as lost:  # another champion than the one it was compared with: a person decides
                record["not_promoted"] = str(lost)
        record["aliases"] = project_aliases(recipe.name)


def finish(run: Run) -> dict[str, Any]:
    """The run's record, published and written down."""
    record = run.record
    record["seconds"] = {stage: round(cost.seconds, 2) for stage, cost in run.spent.stages.items()}
    record["cost"] = run.spent.told()
    record |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "flow_run": flow_run.id}
    record["number"] = runs.next_number(the_store(), record["recipe"])
    publish(record)
    runs.finish(the_store(), record)
    return record


@contextmanager
def timed(spent: Meter, stage: str) -> Iterator[None]:
    """Say that a stage begins, and write down what it cost."""
    tell(News(stage, ""))
    with spent.stage(stage):
        yield


def _refuse(why: str | None) -> None:
    if why:
        raise Refused(why)
