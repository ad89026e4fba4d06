"""Retrain a recipe: from the data as they are now to a registered, perhaps promoted, soft prompt."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.minting import Refused, Run, check, enter, finish, judge, timed, train
from pipelines.costs import Meter
from pipelines.known import find_recipe
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finished, run_key, unchanged
from pipelines.settings import recipes_folder
from pipelines.store.opening import the_store
from pipelines.training.compute import Compute, load_compute
from tasks.bases import pin_base
from tasks.data import snapshot
from tasks.limits import no_longer_than, one_of, turn_of
from tasks.reporting import publish_unchanged


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


def _mint(recipe: Recipe, compute: Compute) -> dict[str, Any]:
    """The run's record, from the data as they are now to a registered, perhaps promoted, prompt."""
    spent = Meter(compute.core_watts, compute.gpu_watts)
    with timed(spent, "pin base"):
        base = pin_base(recipe)
    with timed(spent, "snapshot"):
        data = snapshot(recipe)
    key = run_key(recipe, base.digest, data)
    if earlier := finished(the_store(), recipe.name, key):
        return _again({**earlier, "unchanged": True})

    run = Run(recipe, compute, base, data, key, spent)
    try:
        checked = check(run)
        tuned = train(run, checked)
        reigning = judge(run, checked, tuned)
        enter(run, tuned, reigning)
    except Refused as why:
        run.record |= {"verdict": "refused", "reason": f"refused: {why}"}
    return finish(run)


def _again(earlier: dict[str, Any]) -> dict[str, Any]:
    """The earlier run's record; its report is one click away."""
    publish_unchanged(earlier)
    return earlier
