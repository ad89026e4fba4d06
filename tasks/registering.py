"""A scored prompt made a version: its artifact completed, registered, written into the ledger, perhaps promoted."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from mlflow_config import registry
from pipelines.bases.pin import PinnedBase
from pipelines.digests import canonical_json
from pipelines.evaluation.report import markdown, plot
from pipelines.promotion import ledger
from pipelines.settings import cache_folder, store_uri
from pipelines.store.store import the_ledger, the_store
from pipelines.store.trees import load_tree, save_tree
from tasks.retrying import RETRYING

VERSIONS_THAT_MATTER = ("promptmint", "torch", "transformers", "safetensors", "tokenizers", "numpy")


@task(task_run_name="complete artifact", **RETRYING)
def complete_artifact(minted: str, base: PinnedBase, record: Mapping[str, Any]) -> str:
    """The tree of the prompt's whole artifact: what was minted, and where it comes from beside it."""
    store = the_store()
    provenance = {
        "prompt_digest": record["prompt_digest"],
        "run_key": record["run_key"],
        "recipe_digest": record["recipe_digest"],
        "data_digest": record["data_digest"],
        "store": store_uri(),
        "base": {"source": base.source, "versions": base.versions},
        **{key: record[key] for key in ("verdict", "reason", "gates", "scores")},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_THAT_MATTER},
    }
    with tempfile.TemporaryDirectory(prefix="promptmint-artifact-") as name:
        folder = Path(name) / "artifact"
        shutil.copytree(load_tree(store, minted, cache_folder()), folder)
        (folder / "provenance.json").write_bytes(canonical_json(provenance) + b"\n")
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
def promote_version(name: str, version: int, who: str, why: str, force: bool = False) -> None:
    """Make a version champion in the ledger. Raises `LedgerError` where it may not be."""
    ledger.promote(the_ledger(), name, version, who=who, why=why, force=force)


@task(task_run_name="roll back version", **RETRYING)
def roll_back_version(name: str, version: int | None, who: str, why: str) -> None:
    """Make an earlier champion champion again. Raises `LedgerError` where there is none."""
    ledger.roll_back(the_ledger(), name, version, who=who, why=why)
