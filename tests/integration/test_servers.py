"""`promptmint up` and `down`: real processes, found again, brought back, and gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from mlflow_config.server import backend_uri, server_command, server_environment
from pipelines.errors import PromptmintError
from promptmint import processes, servers

SERVED = ("prefect", "mlflow", "worker")


@pytest.fixture(scope="module")
def first(place: Any) -> dict[str, Any]:
    """What the first `up` in this place returned."""
    return up(place)


def up(place: Any) -> dict[str, Any]:
    return servers.up(place.home, place.prefect_port, place.mlflow_port)


def pids(result: dict[str, Any]) -> dict[str, int]:
    return {name: result[name]["pid"] for name in SERVED}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
class TestServers:
    """One story, told in order: each test finds the servers as the one before left them."""

    def test_first_up_starts_everything(self, place: Any, first: dict[str, Any]) -> None:
        assert [first[name]["already_running"] for name in SERVED] == [False, False, False]
        assert place.get("/api/health") == b"true"
        assert place.get("/health", place.mlflow_port) == b"OK"
        assert (place.home / "mlflow.db").exists()
        assert (place.home / "prefect" / "prefect.db").exists()
        assert first["prefect"]["url"] == f"http://127.0.0.1:{place.prefect_port}"

    def test_nothing_listens_beyond_this_machine(self, place: Any, first: dict[str, Any]) -> None:
        processes = [psutil.Process(pid) for pid in pids(first).values()]
        family = [*processes, *(child for process in processes for child in process.children(recursive=True))]
        listening = [c.laddr for process in family for c in process.net_connections("inet") if c.status == "LISTEN"]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert {place.prefect_port, place.mlflow_port} <= {address.port for address in listening}

    def test_the_servers_outlive_the_terminal(self, first: dict[str, Any]) -> None:
        assert all(os.getsid(pid) == pid for pid in pids(first).values())

    def test_deployments_are_what_prefect_yaml_says(self, place: Any, first: dict[str, Any]) -> None:
        found = place.deployments()
        assert {name: entry["entrypoint"] for name, entry in found.items()} == {
            "retrain": "flows.retrain.retrain",
            "retrain-scheduled": "flows.retrain.retrain",
            "retrain-on-new-data": "flows.retrain.retrain",
            "watch": "flows.watch.watch",
            "promote": "flows.promote.promote",
            "roll-back": "flows.promote.roll_back",
            "reconcile": "flows.promote.reconcile",
            "promote-family": "flows.promote.promote_family",
        }
        assert sorted(first["deployments"]) == sorted(
            f"{entry['entrypoint'].split('.')[-1].replace('_', '-')}/{name}" for name, entry in found.items()
        )
        for name in ("retrain", "retrain-scheduled", "retrain-on-new-data"):
            assert found[name]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
            assert found[name]["global_concurrency_limit"]["limit"] == 4

    def test_the_cron_deployment_has_scheduled_runs(self, place: Any, until: Callable[..., Any], first: Any) -> None:
        def scheduled() -> list[dict[str, Any]]:
            return [run for run in place.flow_runs("retrain-scheduled") if run["state_type"] == "SCHEDULED"]

        for run in until(scheduled, 40):
            assert datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC).strftime("%H:%M") == "03:00"
            assert run["parameters"]["recipe"] == "ticket-routing"

    def test_an_event_starts_a_run_of_its_recipe(self, place: Any, until: Callable[..., Any], first: Any) -> None:
        emit = ["event", "emit", "promptmint.data.arrived", "--resource-id", "promptmint.recipe.tickets"]
        environment = {
            **os.environ,
            "PREFECT_API_URL": f"http://127.0.0.1:{place.prefect_port}/api",
            "PREFECT_HOME": str(place.home / "client"),
            "DO_NOT_TRACK": "1",
        }
        payload = json.dumps({"recipe": "no-such-recipe"})
        command = [sys.executable, "-m", "prefect", *emit, "--payload", payload]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        (run,) = until(lambda: place.flow_runs("retrain-on-new-data"), 40)
        assert run["parameters"]["recipe"] == "no-such-recipe"

    def test_a_flow_that_cannot_be_imported_is_reported(
        self, place: Any, first: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = {"name": "broken", "entrypoint": "flows.no_such.flow", "work_pool": {"name": servers.POOL}}
        (tmp_path / "prefect.yaml").write_text(json.dumps({"deployments": [broken]}))  # JSON is YAML
        monkeypatch.setattr(servers, "ROOT", tmp_path)
        with pytest.raises(PromptmintError, match=r"(?s)Prefect refused the deployments.*no_such"):
            servers._deploy(place.home, place.prefect_port, [broken])

    def test_second_up_starts_nothing(self, place: Any, first: dict[str, Any]) -> None:
        automations = place.post("/automations/filter", {})
        second = up(place)
        assert pids(second) == pids(first)
        assert [second[name]["already_running"] for name in SERVED] == [True, True, True]
        assert place.post("/automations/filter", {}) == automations

    def test_killed_servers_come_back_and_their_runs_are_not_left_running(
        self, place: Any, first: dict[str, Any]
    ) -> None:
        run = self.a_run_that_holds_the_slot(place)
        assert place.deployments()["retrain"]["global_concurrency_limit"]["active_slots"] == 1
        for name in ("prefect", "worker"):
            os.kill(first[name]["pid"], signal.SIGKILL)
        time.sleep(0.5)

        again = up(place)

        assert [again[name]["already_running"] for name in SERVED] == [False, True, False]
        assert again["mlflow"]["pid"] == first["mlflow"]["pid"]
        assert len(place.deployments()) == 8
        (found,) = place.flow_runs("retrain")
        assert (found["id"], found["state_type"]) == (run, "CRASHED")
        assert place.deployments()["retrain"]["global_concurrency_limit"]["active_slots"] == 0

    def a_run_that_holds_the_slot(self, place: Any) -> str:
        """A run of the deployment `retrain` that counts as running although no worker has it."""
        path = f"/deployments/{place.deployments()['retrain']['id']}/create_flow_run"
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
        run: str = place.post(path, {"parameters": {"recipe": "x"}, "state": later})["id"]
        for state in ("PENDING", "RUNNING"):
            force = state == "RUNNING"  # it is not due yet
            answer = place.post(f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": force})
            assert answer["status"] == "ACCEPT"
        return run

    def test_down_stops_everything_and_again_nothing(self, place: Any, first: dict[str, Any]) -> None:
        assert sorted(servers.down(place.home)["stopped"]) == sorted(SERVED)
        assert not listens(place.prefect_port)
        assert not listens(place.mlflow_port)
        assert [process for name in SERVED for process in processes.marked(place.home, name)] == []
        assert servers.down(place.home) == {"stopped": {}}


def test_a_taken_port_is_named_with_the_option_that_changes_it(place: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PromptmintError, match=rf"Port {port} .*--prefect-port"):
            servers.up(tmp_path, port, place.mlflow_port)


def test_a_taken_second_port_stops_what_was_started(place: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PromptmintError, match=rf"Port {port} .*--mlflow-port"):
            servers.up(tmp_path, place.prefect_port, port)
    assert processes.marked(tmp_path, "prefect") == []
    assert servers.down(tmp_path) == {"stopped": {}}


def test_a_server_that_is_too_slow_is_taken_down(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_S", 0.2)
    with pytest.raises(PromptmintError, match=r"(?s)prefect runs but was not healthy after 0.2 s.*prefect\.log"):
        servers.up(tmp_path, place.prefect_port, place.mlflow_port)
    assert [process for name in SERVED for process in processes.marked(tmp_path, name)] == []
    assert list((tmp_path / "servers").glob("*.json")) == []


def test_a_process_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    command = [sys.executable, "-c", "print('I cannot go on')"]
    processes.start(tmp_path, "worker", 1, command, {}, [])
    with pytest.raises(PromptmintError, match=r"(?s)worker ended while it started.*I cannot go on"):
        servers._await(tmp_path, "worker", lambda: False)


def test_a_stale_record_is_not_taken_for_a_server(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    record = tmp_path / "servers" / "prefect.json"
    record.write_text(json.dumps({"pid": os.getpid(), "port": 4200}))  # the id was given to this very test
    assert processes.running(tmp_path, "prefect") is None
    assert servers.down(tmp_path) == {"stopped": {}}
    assert not record.exists()


@pytest.mark.parametrize("written", ["", "[1]", "{", "17"])
def test_a_damaged_record_is_no_record(tmp_path: Path, written: str) -> None:
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "worker.json").write_text(written)
    assert processes.running(tmp_path, "worker") is None


def test_children_of_a_killed_parent_are_stopped(tmp_path: Path, until: Callable[..., Any]) -> None:
    (tmp_path / "servers").mkdir()
    shell = [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"]
    parent = psutil.Process(processes.start(tmp_path, "worker", 1, shell, {}, [])["pid"])
    (child,) = until(parent.children, 10)
    parent.kill()
    parent.wait()
    assert servers.down(tmp_path) == {"stopped": {"worker": child.pid}}
    assert not child.is_running()


def test_a_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.5)
    (tmp_path / "servers").mkdir()
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    started = processes.start(tmp_path, "worker", 1, [sys.executable, "-c", deaf], {}, [])
    until(lambda: "deaf" in Path(started["log"]).read_text(), 10)
    assert servers.down(tmp_path) == {"stopped": {"worker": started["pid"]}}
    assert not psutil.pid_exists(started["pid"])


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOCK_S", 0.1)
    (tmp_path / "servers").mkdir()
    with (
        FileLock(tmp_path / "servers" / "lock"),
        pytest.raises(PromptmintError, match="Another `promptmint up` or `down`"),
    ):
        servers.down(tmp_path)


def test_without_a_checkout_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    with pytest.raises(PromptmintError, match="from a checkout"):
        servers.up(tmp_path)


def test_callers_prefect_settings_do_not_reach_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "of somebody else's server")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = processes.environment(tmp_path, "worker", servers._prefect_environment(tmp_path, 4300))
    assert "PREFECT_API_KEY" not in environment
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert environment["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert environment["NO_PROXY"].split(",") == ["127.0.0.1", "localhost", "example.org"]
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("uri", "backend"),
    [
        ("", "sqlite:///{home}/mlflow.db"),
        ("postgresql://user:word@db/mlflow", "postgresql://user:word@db/mlflow"),
        ("http://127.0.0.1:5001", "sqlite:///{home}/mlflow.db"),
        ("http://localhost:5001/", "sqlite:///{home}/mlflow.db"),
        ("http://127.0.0.1:5002", None),
        ("https://mlflow.example.org", None),
    ],
)
def test_the_backend_is_the_tracking_uri_unless_that_is_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, backend: str | None
) -> None:
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert backend_uri(tmp_path, 5001) == (backend and backend.format(home=tmp_path))


def test_somebody_elses_mlflow_is_used_and_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    started: list[str] = []
    assert servers._start_mlflow(tmp_path, 5001, started)["url"] == "https://mlflow.example.org"
    assert started == []


def test_mlflows_password_is_not_on_its_command_line(tmp_path: Path) -> None:
    secret = "postgresql://user:word@db/mlflow"
    assert secret not in " ".join(server_command(tmp_path, 5001))
    assert server_environment(secret)["MLFLOW_BACKEND_STORE_URI"] == secret
