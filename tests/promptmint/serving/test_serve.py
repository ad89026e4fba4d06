"""`promptmint serve` as a process: it starts, is loaded, is asked to stop, and leaves no request without its answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from promptmint.serving.server import bound

ROOT = Path(__file__).parents[3]


def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "promptmint.cli", "serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def url_of(server: subprocess.Popen[str]) -> str:
    """Where the server listens, read from its logs."""
    assert server.stderr is not None
    for line in server.stderr:
        if (told := json.loads(line))["event"] == "listening":
            return str(told["url"])
    raise AssertionError(f"it ended with {server.wait()}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_under_load_it_answers_and_ends_well(shop: Any, number: signal.Signals) -> None:
    server = start("tickets", "letters@1", "--port", "0", PROMPTMINT_HOME=str(shop.home))
    try:
        url, seen, over = url_of(server), Counter[int](), threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=url, timeout=30) as http:
                while not over.is_set():
                    try:
                        rows = [{"prompt": prompt, "text": "my invoice"} for prompt in ("tickets", "letters@1")] * 8
                        status = http.post("/v1/batch", json={"rows": rows}).status_code
                    except httpx.HTTPError:  # nobody there, or gone before the request was looked at
                        status = 0
                    seen[status] += 1
                    time.sleep(0 if status == 200 else 0.1)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while seen[200] < 20:
            time.sleep(0.05)
        server.send_signal(number)
        _, logs = server.communicate(timeout=60)
        over.set()
        for thread in threads:
            thread.join()
    finally:
        server.kill()
    lines = [json.loads(line) for line in logs.splitlines()]
    assert server.returncode == 0, logs[-2000:]
    assert [line["event"] for line in lines if line["event"] != "request"] == ["draining", "stopped"]
    answered = Counter(line["status"] for line in lines if line["event"] == "request")
    assert set(answered) <= {200, 503}
    assert {status: seen[status] for status in answered} == answered, "each answer that was given has arrived"


@pytest.mark.slow
def test_what_cannot_be_served_ends_it_with_a_message(shop: Any, tmp_path: Path) -> None:
    home = {"PROMPTMINT_HOME": str(shop.home)}
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = {
            "Without tokens a server listens on 127.0.0.1 only": start("tickets", "--host", "0.0.0.0", **home),
            "No soft prompt 'nothing' is registered": start("nothing", "--port", "0", **home),
            "cannot be read as a list of clients": start("tickets", PROMPTMINT_TOKENS=str(tmp_path / "none"), **home),
            f"Cannot listen on port {port} of '127.0.0.1'": start("tickets", "--port", port, **home),
        }
        for message, server in refused.items():
            out, err = server.communicate(timeout=120)
            assert server.returncode in (1, 9) and out == "" and message in err, (server.returncode, err)
            assert "Traceback" not in err
