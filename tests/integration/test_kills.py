"""Servers and worker killed in the middle of each step of a run: nothing is lost, nothing is done twice.

A run is held where it does the most harm: between a file and the list that names it, between MLflow's version and the
ledger's entry, between the ledger and the alias. `stops/sitecustomize.py` holds it there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines import runs
from pipelines.promotion import ledger
from pipelines.store.opening import the_ledger, the_store
from promptmint import processes, servers

RUN_S = 600  # what a part of a run may take on a very busy machine
POINTS = {
    "pin": "pipelines.bases.pin:save_file",  # before the first file of the base is in the store
    "snapshot": "pipelines.data.snapshot:save_tree",
    "validate": "pipelines.data.validate:check_set",  # between the contract and the expectations
    "tokenize": "pipelines.tokens.encode:save_tree",
    "train": "pipelines.training.loop:validate",  # in the worker, after the first epoch
    "score": "pipelines.evaluation.scoring:save_scores",
    "judge": "tasks.gating:judge_gates",
    "register": "pipelines.promotion.ledger:register",  # MLflow has the version, the ledger knows nothing of it
    "promote": "mlflow_config.registry:project",  # the ledger has decided, the alias is not set
    "finish": "pipelines.runs:finish",  # all is done, and no record says so
}
pytestmark = [pytest.mark.long, pytest.mark.timeout(2700)]


class Stops:
    """Where runs are held, and let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "points.json").write_text(json.dumps(POINTS))

    def set(self) -> None:
        """Every step holds the next run that comes to it."""
        for path in (*self.folder.glob("*.reached"), *self.folder.glob("*.go")):
            path.unlink()

    def reached(self, step: str) -> bool:
        return (self.folder / f"{step}.reached").exists()

    def go(self, step: str) -> None:
        (self.folder / f"{step}.go").touch()


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    return Stops(tmp_path_factory.mktemp("stops"))


@pytest.fixture(scope="module")
def served(place: Any, workshop: Any, stops: Stops) -> Callable[[], dict[str, Any]]:
    """Starts what does not run. Runs speak to MLflow's server, and can be held."""

    def up() -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROMPTMINT_RECIPES", str(workshop.folder / "recipes"))
            patch.setenv("PROMPTMINT_COMPUTE", str(workshop.folder / "compute.toml"))
            patch.setenv("PROMPTMINT_STOPS", str(stops.folder))
            patch.setenv("PYTHONPATH", str(Path(__file__).parent / "stops"), prepend=os.pathsep)
            patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{place.mlflow_port}")
            return servers.up(place.home, place.prefect_port, place.mlflow_port)

    up()
    for name in ("watch", "retrain-scheduled"):
        deployment = place.deployments()[name]["id"]
        place.post(f"/deployments/{deployment}", {"paused": True}, method="PATCH")
    return up


def kill(place: Any, *names: str) -> None:
    """SIGKILL to everything that these have started, as when the power fails."""
    found = [process for name in names for process in processes.marked(place.home, name)]
    assert found, f"nothing of {names} runs"
    for process in found:
        process.kill()
    psutil.wait_procs(found, timeout=10)


@pytest.fixture
def named(place: Any, workshop: Any, stops: Stops, served: Any) -> Callable[[str, int], str]:
    """`named(name, seed)`: a recipe of its own with new data and a base that nobody has pinned; every step holds it."""

    def make(name: str, seed: int) -> str:
        recipes = workshop.folder / "recipes"
        orchard = (recipes / "orchard.toml").read_text()
        text = orchard.replace('name = "orchard"', f'name = "{name}"').replace("tiny-bert", f"base-of-{name}")
        (recipes / f"{name}.toml").write_text(text)
        workshop.deliver(f"{name}.csv", 400, seed=seed)
        stops.set()
        return name

    return make


def check(place: Any, name: str) -> None:
    """One version in MLflow and in the ledger, promoted once; the alias on it; one record; each method trained once."""
    entries = ledger.read(the_ledger(), name)  # which checks that the chain has no gap
    assert [(entry.action, entry.version) for entry in entries] == [("registered", 1), ("promoted", 1)]
    api = "/api/2.0/mlflow"
    search = f"{api}/model-versions/search?filter=name%3D%27{name}%27"
    versions = json.loads(place.get(search, place.mlflow_port))["model_versions"]
    assert [each["version"] for each in versions] == ["1"]
    alias = f"{api}/registered-models/alias?name={name}&alias=champion"
    assert json.loads(place.get(alias, place.mlflow_port))["model_version"]["version"] == "1"
    (record,) = runs.recorded(the_store(), name)
    assert (record["verdict"], record["version"]) == ("passed", 1)
    memos = (place.home / "store" / "memo" / "train").glob("*.json")
    inputs = [json.loads(path.read_text())["inputs"] for path in memos]
    test = Counter(each["kind"] for each in inputs if each["shards"]["train"] == shards_of(place, record))
    assert test == {"prompt": 1, "lora": 1}


def shards_of(place: Any, record: dict[str, Any]) -> str:
    """The tree of the training split's shards."""
    memos = (place.home / "store" / "memo" / "tokenize").glob("*.json")
    found = [json.loads(path.read_text()) for path in memos]
    split = record["data"]["split_trees"]["train"]
    (tree,) = [memo["value"]["tree"] for memo in found if memo["inputs"]["split"] == split]
    return str(tree)


def test_servers_die_in_each_step_of_one_run(
    place: Any, stops: Stops, served: Callable[[], Any], until: Callable[..., Any], named: Any
) -> None:
    """Prefect and MLflow die, and the run goes on without them until they are back: one run, ten deaths."""
    run = place.run("retrain", recipe=named("meadow", 1))
    for step in POINTS:
        until(lambda step=step: stops.reached(step) or place.ended(run), RUN_S)
        assert stops.reached(step), place.look(run)["state"]
        kill(place, "prefect", "mlflow")
        stops.go(step)
        served()
    until(lambda: place.ended(run), RUN_S)
    assert place.look(run)["state_name"] == "Completed", place.look(run)["state"]
    check(place, "meadow")


def test_a_power_failure_in_each_step(
    place: Any, stops: Stops, served: Callable[[], Any], until: Callable[..., Any], named: Any
) -> None:
    """Everything dies: servers, worker, the run itself and its training. The next run goes on."""
    name = named("field", 2)
    for step in POINTS:
        run = place.run("retrain", recipe=name)
        until(lambda step=step, run=run: stops.reached(step) or place.ended(run), RUN_S)
        assert stops.reached(step), place.look(run)["state"]
        kill(place, "prefect", "mlflow", "worker")
        served()
        assert place.look(run)["state_name"] == "Crashed"
    run = place.run("retrain", recipe=name)
    until(lambda: place.ended(run), RUN_S)
    assert place.look(run)["state_name"] == "Completed", place.look(run)["state"]
    check(place, name)
