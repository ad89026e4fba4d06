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
from pipelines.store.store import the_ledger, the_store
from promptmint import processes, servers

RUN_S = 280  # what a part of a run may take on a busy machine
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
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


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


def trained(place: Any) -> Counter[str]:
    """How many trainings of each method the store remembers."""
    memos = (place.home / "store" / "memo" / "train").glob("*.json")
    return Counter(json.loads(path.read_text())["inputs"]["job"]["name"] for path in memos)


def check(place: Any, version: int) -> None:
    """Each version once in MLflow, once in the ledger, promoted once; the alias on the last; a record of every run."""
    entries = ledger.read(the_ledger(), "orchard")  # which checks that the chain has no gap
    expected = [(action, n) for n in range(1, version + 1) for action in ("registered", "promoted")]
    assert [(entry.action, entry.version) for entry in entries] == expected
    api, model = "/api/2.0/mlflow", "name=orchard"
    found = json.loads(place.get(f"{api}/model-versions/search?filter=name%3D%27orchard%27", place.mlflow_port))
    assert sorted(int(each["version"]) for each in found["model_versions"]) == list(range(1, version + 1))
    alias = json.loads(place.get(f"{api}/registered-models/alias?{model}&alias=champion", place.mlflow_port))
    assert int(alias["model_version"]["version"]) == version
    records = runs.recorded(the_store(), "orchard")
    assert sorted(record["version"] for record in records) == list(range(1, version + 1))
    assert {record["verdict"] for record in records} == {"passed"}
    assert trained(place) == {"prompt": version, "lora": version}


def test_a_power_failure_in_each_step(
    place: Any, workshop: Any, stops: Stops, served: Callable[[], Any], until: Callable[..., Any]
) -> None:
    """Everything dies: servers, worker, the run itself and its training. The next run goes on."""
    workshop.deliver("monday.csv", 400, seed=1)
    stops.set()
    for step in POINTS:
        run = place.run("retrain", recipe="orchard")
        until(lambda step=step, run=run: stops.reached(step) or place.ended(run), RUN_S)
        assert stops.reached(step), place.look(run)["state"]
        kill(place, "prefect", "mlflow", "worker")
        served()
        assert place.look(run)["state_name"] == "Crashed"
    run = place.run("retrain", recipe="orchard")
    until(lambda: place.ended(run), RUN_S)
    assert place.look(run)["state_name"] == "Completed", place.look(run)["state"]
    check(place, version=1)


def test_servers_die_in_each_step_of_one_run(
    place: Any, workshop: Any, stops: Stops, served: Callable[[], Any], until: Callable[..., Any]
) -> None:
    """Prefect and MLflow die, and the run goes on without them until they are back: one run, ten deaths."""
    workshop.deliver("tuesday.csv", 400, seed=2)
    stops.set()
    (Path(stops.folder) / "pin.reached").touch()  # the base is in the store since the first run
    run = place.run("retrain", recipe="orchard")
    for step in list(POINTS)[1:]:
        until(lambda step=step: stops.reached(step) or place.ended(run), RUN_S)
        assert stops.reached(step), place.look(run)["state"]
        kill(place, "prefect", "mlflow")
        stops.go(step)
        served()
    until(lambda: place.ended(run), RUN_S)
    assert place.look(run)["state_name"] == "Completed", place.look(run)["state"]
    check(place, version=2)
