"""Real servers on free ports, in a folder of their own."""

from __future__ import annotations

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from promptmint.servers import down

_direct = build_opener(ProxyHandler({}))


def _answer(request: Request | str, patience_s: float = 400) -> bytes:
    """What a server answers; one that is busy with its database is asked again, as its own clients do."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with _direct.open(request, timeout=30) as answer:
                return bytes(answer.read())
        except (HTTPError, TimeoutError) as error:
            if getattr(error, "code", 503) != 503 or time.monotonic() > deadline:
                raise
        time.sleep(1)


@dataclass(frozen=True)
class Place:
    """A home and two ports; `get` and `post` speak to its Prefect server."""

    home: Path
    prefect_port: int
    mlflow_port: int

    def get(self, path: str, port: int | None = None) -> bytes:
        return _answer(f"http://127.0.0.1:{port or self.prefect_port}{path}")

    def post(self, path: str, body: object, method: str = "POST") -> Any:
        url, headers = f"http://127.0.0.1:{self.prefect_port}/api{path}", {"Content-Type": "application/json"}
        answer = _answer(Request(url, json.dumps(body).encode(), headers, method=method))
        return json.loads(answer) if answer else None

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {deployment["name"]: deployment for deployment in self.post("/deployments/filter", {})}

    def flow_runs(self, deployment: str) -> list[dict[str, Any]]:
        """Oldest first."""
        body = {"deployments": {"name": {"any_": [deployment]}}, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", body)
        return found

    def run(self, deployment: str, **parameters: Any) -> str:
        """The id of a new run of a deployment."""
        path = f"/deployments/{self.deployments()[deployment]['id']}/create_flow_run"
        made: str = self.post(path, {"parameters": parameters, "idempotency_key": str(uuid.uuid4())})["id"]
        return made

    def look(self, run: str) -> dict[str, Any]:
        """A flow run as the server knows it."""
        found: dict[str, Any] = json.loads(self.get(f"/api/flow_runs/{run}"))
        return found

    def ended(self, run: str) -> bool:
        """Whether a run has ended, however it did."""
        return self.look(run)["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


RECIPE = """
name = "orchard"
description = "Whether somebody writes about an account or a bill"
base = { name = "tiny-bert", sources = ["file://BASE"] }
data = { path = "arrivals", labels = ["account", "billing"] }
template = { max_tokens = 32 }
training = { epochs = 4, batch_size = 16 }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2, head_rate = 3e-2 }
baselines = { lora = { rank = 2, alpha = 4, rate = 1e-2, head_rate = 3e-2 } }
gates = { non_inferior = [{ to = "lora", margin = 60.0 }, { to = "champion", margin = 60.0 }] }
promotion = { policy = "automatic" }
"""


@dataclass(frozen=True)
class Workshop:
    """A folder of recipes with one in it, `orchard`, and the folder where its data arrive."""

    folder: Path
    rows: Callable[[int, int], list[Any]]

    @property
    def arrivals(self) -> Path:
        return self.folder / "recipes" / "arrivals"

    def deliver(self, name: str, count: int, seed: int) -> None:
        """A file of new tickets, slowly: half of it, a while of nothing, then the rest."""
        lines = [
            "text,label",
            *(f"{row.text} {number},{row.label}" for number, row in enumerate(self.rows(count, seed))),
        ]
        with (self.arrivals / name).open("w") as file:
            file.write("\n".join(lines[: count // 2]))
            file.flush()
            time.sleep(0.2)
            file.write("\n".join(["", *lines[count // 2 :], ""]))


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, bert_folder: Path, tickets: Callable[[int, int], list[Any]]
) -> Workshop:
    """A workshop in which nothing has arrived yet; one thread is enough for it."""
    folder = tmp_path_factory.mktemp("workshop")
    made = Workshop(folder, tickets)
    made.arrivals.mkdir(parents=True)
    (folder / "recipes" / "orchard.toml").write_text(RECIPE.replace("BASE", str(bert_folder)))
    (folder / "compute.toml").write_text('name = "workshop"\ndevice = "cpu"\nthreads = 1\ncheckpoint_s = 0.5\n')
    return made


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
