"""Processes that outlive the command that starts them: started once, found again, stopped with their children.

    HOME/servers/NAME.json   the process: {"pid", "port"}
    HOME/servers/NAME.log    what it says

A process of ours is known by a mark in its environment (PROMPTMINT_SERVER=NAME@HOME), which its children inherit: a
process id that was given to somebody else in the meantime does not carry it, and what outlives a killed parent does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from pipelines.errors import PromptmintError

ROOT = Path(__file__).resolve().parent.parent  # the checkout: prefect.yaml and recipes/ lie here
LOCK_S = 120  # that `up` waits for another one
STOP_S = 15  # between SIGTERM and SIGKILL

_MARK = "PROMPTMINT_SERVER"


def start(
    home: Path, name: str, port: int, command: list[str], settings: dict[str, str], started: list[str]
) -> dict[str, Any]:
    """The process, started detached unless it runs already; `started` learns its name."""
    log = folder(home) / f"{name}.log"
    found = running(home, name)
    if found is None:
        stop(home, name)  # what outlived a killed parent
        if name != "worker":
            _check_port(port, name)
        started.append(name)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(home, name, settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in this terminal is not for the servers
            )
        write_json(folder(home) / f"{name}.json", {"pid": process.pid, "port": port})
        while process.poll() is None and not _carries(process.pid, _mark(home, name)):
            time.sleep(0.01)  # a new process shows its environment only some moments after it was started
    record = found or {"pid": process.pid, "port": port}
    url = f"http://127.0.0.1:{record['port']}"
    return {"url": url, **record, "log": str(log), "already_running": found is not None}


def running(home: Path, name: str) -> dict[str, Any] | None:
    """`{"pid", "port"}` of the process in the record, if that process lives and carries our mark."""
    record = read_json(folder(home) / f"{name}.json")
    return record if record and _carries(record["pid"], _mark(home, name)) else None


def stop(home: Path, name: str) -> int | None:
    """The id of the process that was stopped with all its children: SIGTERM first, SIGKILL for what does not obey."""
    record = running(home, name)
    processes = marked(home, name)
    for process in processes:
        _send(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=STOP_S)
    for process in [*stubborn, *marked(home, name)]:
        _send(process.kill)
        psutil.wait_procs([process], timeout=STOP_S)
    (folder(home) / f"{name}.json").unlink(missing_ok=True)
    return record["pid"] if record else (processes[0].pid if processes else None)


def marked(home: Path, name: str) -> list[psutil.Process]:
    """Every living process that carries the mark of this name."""
    return [psutil.Process(pid) for pid in psutil.pids() if pid != os.getpid() and _carries(pid, _mark(home, name))]


def environment(home: Path, name: str | None, settings: dict[str, str]) -> dict[str, str]:
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


def log_end(home: Path, name: str) -> str:
    """What a process said last, for a message."""
    log = folder(home) / f"{name}.log"
    return f"The end of {str(log)!r}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def folder(home: Path) -> Path:
    """Where records and logs lie."""
    return home / "servers"


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    folder(home).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder(home) / "lock", timeout=LOCK_S):
            yield
    except Timeout:
        raise PromptmintError(f"Another `promptmint up` or `down` is at work in {str(home)!r}. Try again.") from None


def read_json(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none, or where it is not ours."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a record whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


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
