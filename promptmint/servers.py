"""The servers of one machine: Prefect, MLflow and a worker. Everything listens on 127.0.0.1 only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import yaml

from mlflow_config.server import backend_uri, server_command, server_environment
from pipelines.digests import digest_bytes, digest_files
from pipelines.errors import PromptmintError
from promptmint import processes
from promptmint.processes import ROOT

POOL = "promptmint-local"
NAMES = ("prefect", "mlflow", "worker")  # in the order in which they start
START_S = 120  # the first start builds two databases
DEPLOY_S = 180

_direct = build_opener(ProxyHandler({}))  # a proxy in the environment knows nothing of this machine's ports


def up(home: Path, prefect_port: int = 4200, mlflow_port: int = 5000) -> dict[str, Any]:
    """What runs now: `{"prefect", "mlflow", "worker"}` with url, pid, log, already_running; and `"deployments"`.

    What runs already is left alone, on the port it has. If one thing does not start, everything that this call started
    is stopped again.

    Args:
        home: the folder of `settings.home()`.
        prefect_port: for Prefect's API and UI.
        mlflow_port: for MLflow's API and UI.

    Raises:
        PromptmintError: a port is taken, a server did not become healthy (with the end of its log), the deployments
            were refused, or this is not a checkout.
    """
    home = home.resolve()
    pools, automations, deployments = _configured()
    started: list[str] = []
    with processes.locked(home):
        try:
            prefect = _start_prefect(home, prefect_port, started)
            mlflow = _start_mlflow(home, mlflow_port, started)
            _await(home, "prefect", lambda: _get(prefect["port"], "/api/health") == b"true")
            if mlflow["pid"]:
                _await(home, "mlflow", lambda: _get(mlflow["port"], "/health") == b"OK")
            _create_pools(prefect["port"], pools)
            _create_automations(prefect["port"], automations)
            _deploy(home, prefect["port"], deployments)
            worker = _start_worker(home, prefect["port"], started)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            for name in reversed(started):
                processes.stop(home, name)
            raise
    flows = (entry["entrypoint"].rpartition(".")[2].replace("_", "-") for entry in deployments)  # as Prefect names them
    names = [f"{flow}/{entry['name']}" for flow, entry in zip(flows, deployments, strict=True)]
    return {"prefect": prefect, "mlflow": mlflow, "worker": worker, "deployments": names}


def down(home: Path) -> dict[str, Any]:
    """What was stopped: `{"stopped": {name: pid}}`, the worker and its flow runs first; empty where nothing ran."""
    home = home.resolve()
    if not processes.folder(home).is_dir():
        return {"stopped": {}}
    with processes.locked(home):
        stopped = {name: processes.stop(home, name) for name in reversed(NAMES)}
    return {"stopped": {name: pid for name, pid in stopped.items() if pid is not None}}


# What is started


def _start_prefect(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    return processes.start(home, "prefect", port, command, _prefect_environment(home, port), started)


def _start_mlflow(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    backend = backend_uri(home, port)
    if backend is None:
        return {"url": os.environ["MLFLOW_TRACKING_URI"].strip(), "pid": None, "log": None, "already_running": True}
    return processes.start(home, "mlflow", port, server_command(home, port), server_environment(backend), started)


def _start_worker(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    """The worker, asking the server on `port`: one that asks elsewhere is stopped first."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--type", "process"]
    command += ["--name", POOL, "--install-policy", "never", "--no-create-pool-if-not-found"]
    running = processes.running(home, "worker")
    if running is None or running["port"] != port:
        processes.stop(home, "worker")
        _bury(port)
    began = time.time()
    worker = processes.start(home, "worker", port, command, _prefect_environment(home, port), started)
    if not worker["already_running"]:
        _await(home, "worker", lambda: _last_heartbeat(port) >= began)
    return worker


def _prefect_environment(home: Path, port: int) -> dict[str, str]:
    """A Prefect of our own, whatever the caller's profile says; its settings are those of no other server."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),  # not into the installed package
        # On disk: with leases in memory, a server that starts again cancels the runs that wait for it.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "5",  # between two asks for a slot
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # by default 10, which is all the time that an event has to become a run
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # what infra/prefect/automations.yaml listens to
    }


def _create_pools(port: int, pools: list[dict[str, Any]]) -> None:
    for pool in pools:
        if pool["type"] == "process":
            body = {key: pool[key] for key in ("name", "type", "description")}
            _post(port, "/api/work_pools/", body, allowed=(409,))  # 409: it is there


def _create_automations(port: int, automations: list[dict[str, Any]]) -> None:
    there = {automation["name"] for automation in _post(port, "/api/automations/filter", {})}
    for automation in automations:
        if automation["name"] not in there:
            _post(port, "/api/automations/", automation)


def _bury(port: int) -> None:
    """Crash the flow runs of a worker that is gone: one that counts as running holds its deployment's only slot."""
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    body = {"flow_runs": unfinished, "work_pools": {"name": {"any_": [POOL]}}}
    for run in _post(port, "/api/flow_runs/filter", body):
        state = {"type": "CRASHED", "name": "Crashed", "message": "Its worker ended before it did."}
        _post(port, f"/api/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def _deploy(home: Path, port: int, deployments: list[dict[str, Any]]) -> None:
    """Deploy prefect.yaml, unless these files were deployed before and nobody deleted a deployment since."""
    record = processes.folder(home) / "deployed.json"
    sources = sorted((ROOT / "flows").glob("*.py"))
    digest = digest_files({path.name: digest_bytes(path.read_bytes()) for path in (ROOT / "prefect.yaml", *sources)})
    there = {entry["name"] for entry in _post(port, "/api/deployments/filter", {})}
    if processes.read_json(record).get("digest") == digest and there >= {entry["name"] for entry in deployments}:
        return
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = processes.environment(home, None, _prefect_environment(home, port))
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEPLOY_S)
    except subprocess.TimeoutExpired:
        raise PromptmintError(f"`prefect deploy --all` did not end within {DEPLOY_S} s. Try again.") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise PromptmintError(f"Prefect refused the deployments of {str(ROOT / 'prefect.yaml')!r}:\n{said}")
    processes.write_json(record, {"digest": digest})


def _configured() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """The work pools and automations of infra/prefect, and the deployments of prefect.yaml."""
    try:
        infra = ROOT / "infra" / "prefect"
        pools = yaml.safe_load((infra / "work-pools.yaml").read_text(encoding="utf-8"))["pools"]
        automations = yaml.safe_load((infra / "automations.yaml").read_text(encoding="utf-8"))["automations"]
        return pools, automations, yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    except FileNotFoundError as error:
        raise PromptmintError(
            f"There is no {error.filename!r}: the servers are started from a checkout of promptmint, installed with "
            "`pip install -e '.[pipeline]'`."
        ) from None


# Health


def _await(home: Path, name: str, healthy: Callable[[], bool]) -> None:
    """Return when `healthy()`; refuse with the end of the log when the process ends first or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if processes.running(home, name) is None:
            raise PromptmintError(f"{name} ended while it started. {processes.log_end(home, name)}")
        try:
            if healthy():
                return
        except (OSError, PromptmintError):  # not listening yet, or answering that it is not ready
            pass
        time.sleep(0.25)
    raise PromptmintError(
        f"{name} runs but was not healthy after {START_S} s: `promptmint down`, then `promptmint up`, starts it anew. "
        f"{processes.log_end(home, name)}"
    )


def _last_heartbeat(port: int) -> float:
    """When the worker last told the server that it lives, in seconds since the epoch; 0.0 for never."""
    workers = _post(port, f"/api/work_pools/{POOL}/workers/filter", {})
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() for worker in workers]
    return max(beats, default=0.0)


def _get(port: int, path: str) -> bytes:
    with _direct.open(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return bytes(answer.read())


def _post(port: int, path: str, body: dict[str, Any], allowed: tuple[int, ...] = ()) -> Any:
    """The server's JSON answer; None for an error that is `allowed`."""
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with _direct.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")
    except HTTPError as error:
        if error.code in allowed:
            return None
        raise PromptmintError(f"Prefect answered {error.code} to {path!r}: {error.read()[:500]!r}.") from None
    except OSError as error:
        raise PromptmintError(f"Prefect on port {port} does not answer {path!r}: {error}.") from None
