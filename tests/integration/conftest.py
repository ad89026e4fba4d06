"""Real servers on free ports, in a folder of their own."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from promptmint.servers import down

_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Place:
    """A home and two ports; `get` and `post` speak to its Prefect server."""

    home: Path
    prefect_port: int
    mlflow_port: int

    def get(self, path: str, port: int | None = None) -> bytes:
        with _direct.open(f"http://127.0.0.1:{port or self.prefect_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: object) -> Any:
        url = f"http://127.0.0.1:{self.prefect_port}/api{path}"
        request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with _direct.open(request, timeout=10) as answer:
            return json.loads(answer.read())

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {deployment["name"]: deployment for deployment in self.post("/deployments/filter", {})}

    def flow_runs(self, deployment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", {"deployments": {"name": {"any_": [deployment]}}})
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A home that no setting of the caller reaches; whatever runs in it at the end is stopped."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_", "PROMPTMINT_"))]:
            patch.delenv(name)
        patch.setenv("PROMPTMINT_HOME", str(home))
        yield Place(home, free_port(), free_port())
        down(home)


def free_port() -> int:
    """A port that nothing listens on, below those that the system hands to clients while we wait."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any], float], Any]:
    """Calls a function until it returns something true; returns that, or fails after so many seconds."""

    def wait(found: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > deadline:
                pytest.fail(f"still {value!r} after {seconds} s")
            time.sleep(0.3)
        return value

    return wait
