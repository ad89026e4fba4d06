"""The servers of one machine: Prefect, MLflow and a worker, started once, found again, and stopped.

    HOME/servers/NAME.json   the process: {"pid", "port"}
    HOME/servers/NAME.log    what it says

A process of ours is known by a mark in its environment (PROMPTMINT_SERVER=NAME@HOME), which its children inherit: a
process id that was given to somebody else in the meantime does not carry it, and what outlives a killed parent does.
Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import yaml
from filelock import FileLock, Timeout

from mlflow_config.server import backend_uri, server_command, server_environment
from pipelines.digests import digest_bytes, digest_files
from pipelines.errors import PromptmintError

ROOT = Path(__file__).resolve().parent.parent  # the checkout: prefect.yaml and recipes/ lie here
POOL = "promptmint-local"
NAMES = ("prefect", "mlflow", "worker")  # in the order in which they start
START_S = 120  # the first start builds two databases
STOP_S = 15  # between SIGTERM and SIGKILL
DEPLOY_S = 180

_MARK = "PROMPTMINT_SERVER"
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
    pools, deployments = _configured()
    started: list[str] = []
    with _locked(home):
        try:
            prefect = _start_prefect(home, prefect_port, started)
            mlflow = _start_mlflow(home, mlflow_port, started)
            _await(home, "prefect", lambda: _get(prefect["port"], "/api/health") == b"true")
            if mlflow["pid"]:
                _await(home, "mlflow", lambda: _get(mlflow["port"], "/health") == b"OK")
            _create_pools(prefect["port"], pools)
            _deploy(home, prefect["port"], deployments)
            worker = _start_worker(home, prefect["port"], started)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            for name in reversed(started):
                _stop(home, name)
            raise
    names = [f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}" for entry in deployments]
    return {"prefect": prefect, "mlflow": mlflow, "worker": worker, "deployments": names}


def down(home: Path) -> dict[str, Any]:
    """What was stopped: `{"stopped": {name: pid}}`, the worker and its flow runs first; empty where nothing ran."""
    home = home.resolve()
    if not _folder(home).is_dir():
        return {"stopped": {}}
    with _locked(home):
        stopped = {name: _stop(home, name) for name in reversed(NAMES)}
    return {"stopped": {name: pid for name, pid in stopped.items() if pid is not None}}


# What is started


def _start_prefect(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start", "--host", "127.0.0.1"]
    return _start(home, "prefect", port, [*command, "--port", str(port)], _prefect_environment(home, port), started)


def _start_mlflow(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    backend = backend_uri(home, port)
    if backend is None:
        return {"url": os.environ["MLFLOW_TRACKING_URI"].strip(), "pid": None, "log": None, "already_running": True}
    return _start(home, "mlflow", port, server_command(home, port), server_environment(backend), started)


def _start_worker(home: Path, port: int, started: list[str]) -> dict[str, Any]:
    """The worker, asking the server on `port`: one that asks elsewhere is stopped first."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--type", "process"]
    command += ["--name", POOL, "--install-policy", "never", "--no-create-pool-if-not-found"]
    running = _running(home, "worker")
    if running is None or running["port"] != port:
        _stop(home, "worker")
        _bury(port)
    began = time.time()
    worker = _start(home, "worker", port, command, _prefect_environment(home, port), started)
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
    }


def _create_pools(port: int, pools: list[dict[str, Any]]) -> None:
    for pool in pools:
        if pool["type"] == "process":
            body = {key: pool[key] for key in ("name", "type", "description")}
            _post(port, "/api/work_pools/", body, allowed=(409,))  # 409: it is there


def _bury(port: int) -> None:
    """Crash the flow runs of a worker that is gone: one that counts as running holds its deployment's only slot."""
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    body = {"flow_runs": unfinished, "work_pools": {"name": {"any_": [POOL]}}}
    for run in _post(port, "/api/flow_runs/filter", body):
        state = {"type": "CRASHED", "name": "Crashed", "message": "Its worker ended before it did."}
        _post(port, f"/api/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def _deploy(home: Path, port: int, deployments: list[dict[str, Any]]) -> None:
    """Deploy prefect.yaml, unless these files were deployed before and nobody deleted a deployment since."""
    record = _folder(home) / "deployed.json"
    sources = sorted((ROOT / "flows").glob("*.py"))
    digest = digest_files({path.name: digest_bytes(path.read_bytes()) for path in (ROOT / "prefect.yaml", *sources)})
    there = {entry["name"] for entry in _post(port, "/api/deployments/filter", {})}
    if _read_json(record).get("digest") == digest and there >= {entry["name"] for entry in deployments}:
        return
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = _environment(home, None, _prefect_environment(home, port))
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEPLOY_S)
    except subprocess.TimeoutExpired:
        raise PromptmintError(f"`prefect deploy --all` did not end within {DEPLOY_S} s. Try again.") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise PromptmintError(f"Prefect refused the deployments of {str(ROOT / 'prefect.yaml')!r}:\n{said}")
    _write_json(record, {"digest": digest})


def _configured() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The work pools of infra/prefect and the deployments of prefect.yaml."""
    try:
        pools = yaml.safe_load((ROOT / "infra" / "prefect" / "work-pools.yaml").read_text(encoding="utf-8"))["pools"]
        return pools, yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    except FileNotFoundError as error:
        raise PromptmintError(
            f"There is no {error.filename!r}: the servers are started from a checkout of promptmint, installed with "
            "`pip install -e '.[pipeline]'`."
        ) from None


# Processes


def _start(
    home: Path, name: str, port: int, command: list[str], settings: dict[str, str], started: list[str]
) -> dict[str, Any]:
    """The process, started detached unless it runs already; `started` learns its name."""
    log = _folder(home) / f"{name}.log"
    found = _running(home, name)
    if found is None:
        _stop(home, name)  # what outlived a killed parent
        if name != "worker":
            _check_port(port, name)
        started.append(name)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(home, name, settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is not for the servers
            )
        _write_json(_folder(home) / f"{name}.json", {"pid": process.pid, "port": port})
        while process.poll() is None and not _carries(process.pid, _mark(home, name)):
            time.sleep(0.01)  # a new process shows its environment only some moments after it was started
    record = found or {"pid": process.pid, "port": port}
    url = f"http://127.0.0.1:{record['port']}"
    return {"url": url, **record, "log": str(log), "already_running": found is not None}


def _running(home: Path, name: str) -> dict[str, Any] | None:
    """`{"pid", "port"}` of the process in the record, if that process lives and carries our mark."""
    record = _read_json(_folder(home) / f"{name}.json")
    return record if record and _carries(record["pid"], _mark(home, name)) else None


def _stop(home: Path, name: str) -> int | None:
    """The id of the process that was stopped with all its children: SIGTERM first, SIGKILL for what does not obey."""
    record = _running(home, name)
    processes = _marked(home, name)
    for process in processes:
        _send(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=STOP_S)
    for process in [*stubborn, *_marked(home, name)]:
        _send(process.kill)
        psutil.wait_procs([process], timeout=STOP_S)
    (_folder(home) / f"{name}.json").unlink(missing_ok=True)
    return record["pid"] if record else (processes[0].pid if processes else None)


def _marked(home: Path, name: str) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in psutil.pids() if pid != os.getpid() and _carries(pid, _mark(home, name))]


def _mark(home: Path, name: str) -> str:
    return f"{name}@{home}"


def _carries(pid: int, mark: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and bool(process.environ().get(_MARK) == mark)
    except (psutil.Error, OSError):  # it is gone, or is another person's
        return False


def _send(signal: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        signal()


def _environment(home: Path, name: str | None, settings: dict[str, str]) -> dict[str, str]:
    """The caller's environment without its Prefect settings, and with ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    kept.pop(_MARK, None)
    ours = {
        "PROMPTMINT_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": ",".join(["127.0.0.1", "localhost", *filter(None, [kept.get("NO_PROXY")])]),
    }
    return {**kept, **ours, **settings, **({_MARK: _mark(home, name)} if name else {})}


def _check_port(port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise PromptmintError(
                f"Port {port} on 127.0.0.1 cannot be used for {name}: {error}. Stop what listens there, or choose "
                f"another port with --{name}-port."
            ) from None


# Health


def _await(home: Path, name: str, healthy: Callable[[], bool]) -> None:
    """Return when `healthy()`; refuse with the end of the log when the process ends first or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if _running(home, name) is None:
            raise PromptmintError(f"{name} ended while it started. {_log_end(home, name)}")
        try:
            if healthy():
                return
        except (OSError, PromptmintError):  # not listening yet, or answering that it is not ready
            pass
        time.sleep(0.25)
    raise PromptmintError(
        f"{name} runs but was not healthy after {START_S} s: `promptmint down`, then `promptmint up`, starts it anew. "
        f"{_log_end(home, name)}"
    )


def _log_end(home: Path, name: str) -> str:
    log = _folder(home) / f"{name}.log"
    return f"The end of {str(log)!r}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:])


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


# Files


def _folder(home: Path) -> Path:
    return home / "servers"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    _folder(home).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_folder(home) / "lock", timeout=START_S):
            yield
    except Timeout:
        raise PromptmintError(f"Another `promptmint up` or `down` is at work in {str(home)!r}. Try again.") from None


def _read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none, or where it is not ours."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
