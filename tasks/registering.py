"""A scored prompt made a version: its artifact completed, registered, written into the ledger, perhaps promoted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from mlflow_config import names, reconcile, registry
from pipelines.bases.pin import PinnedBase
from pipelines.digests import canonical_json
from pipelines.evaluation.report import markdown, plot
from pipelines.known import known_recipes
from pipelines.promotion import ledger
from pipelines.promotion.family import decide, load_family
from pipelines.prompts.provenance import provenance
from pipelines.recipe import Recipe
from pipelines.runs import finished
from pipelines.settings import cache_folder, recipes_folder, store_uri
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.trees import load_tree, save_tree
from tasks.retrying import RETRYING


@task(task_run_name="complete artifact", **RETRYING)
def complete_artifact(minted: str, recipe: Recipe, base: PinnedBase, record: Mapping[str, Any]) -> str:
    """The tree of the prompt's whole artifact: what was minted, and where it comes from beside it."""
    store = the_store()
    origin = provenance(record, recipe, base, store_uri())
    with tempfile.TemporaryDirectory(prefix="promptmint-artifact-") as name:
        folder = Path(name) / "artifact"
        shutil.copytree(load_tree(store, minted, cache_folder()), folder)
        (folder / "provenance.json").write_bytes(canonical_json(origin) + b"\n")
        return save_tree(store, folder)


@task(task_run_name="register", **RETRYING)
def register(record: Mapping[str, Any]) -> int:
    """The version under which the run's prompt now stands in MLflow and in the ledger; once, however often asked."""
    artifact = load_tree(the_store(), record["artifact"], cache_folder())
    files = {"report.md": markdown(record).encode(), "report.png": plot(record)}
    version = registry.register(record["recipe"], artifact, record, files)
    ledger.register(
        the_ledger(), record["recipe"], version, prompt_digest=record["prompt_digest"], verdict=record["verdict"],
        run_key=record["run_key"], who="promptmint", why=record["reason"],
    )  # fmt: skip
    return version


@task(task_run_name="project aliases", **RETRYING)
def project_aliases(name: str) -> dict[str, int | None]:
    """`{champion, challenger}` as the ledger has them; MLflow's aliases now say the same."""
    state = ledger.state(ledger.read(the_ledger(), name))
    registry.project(name, state.champion, state.challenger)
    return {"champion": state.champion, "challenger": state.challenger}


@task(task_run_name="promote version", **RETRYING)
def promote_version(
    name: str, version: int, who: str, why: str, force: bool = False, expected: int | None = None
) -> None:
    """Make a version champion in the ledger. Raises `LedgerError` where it may not be."""
    ledger.promote(the_ledger(), name, version, who=who, why=why, force=force, expected=expected)


@task(task_run_name="judge family", **RETRYING)
def judge_family(family: str) -> dict[str, Any]:
    """`{family, control, level, members}`: which versions that wait in a family are proven, with the others beside."""
    recipes = load_family(family, known_recipes(recipes_folder()))
    return asdict(decide(the_store(), the_ledger(), family, recipes))


@task(task_run_name="roll back version", **RETRYING)
def roll_back_version(name: str, version: int | None, who: str, why: str, expected: int | None = None) -> None:
    """Make an earlier champion champion again. Raises `LedgerError` where there is none."""
    ledger.roll_back(the_ledger(), name, version, who=who, why=why, expected=expected)


@task(task_run_name="reconcile with ledger", **RETRYING)
def reconcile_with_ledger(name: str, dry_run: bool) -> dict[str, Any]:
    """`{changed, lost}`: what MLflow did not say as the ledger does, and the versions that it does not have.

    With `dry_run` nothing is changed.
    """
    entries = ledger.read(the_ledger(), name)
    state = ledger.state(entries)
    tags = {entry.version: _tags(entry) for entry in entries if entry.action == "registered"}
    changed, lost = reconcile.differences(name, state.champion, state.challenger, tags)
    if not dry_run:
        reconcile.repair(changed)
    return {"changed": [asdict(each) for each in changed], "lost": lost}


def _tags(entry: ledger.Entry) -> dict[str, str]:
    """The tags of a version, as its run's record and the ledger have them; the ledger has the last word."""
    record = finished(the_store(), entry.name, entry.run_key)
    return (registry.tags(record) if record else {}) | {
        names.TAG_VERDICT: entry.verdict,
        names.TAG_RUN_KEY: entry.run_key,
        names.TAG_PROMPT: entry.prompt_digest,
    }
