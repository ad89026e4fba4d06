"""What was started for a command ends with it, even where the command is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PARENT = """
import subprocess, time
from promptmint.embedded import end_with_us
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
end_with_us(child.pid)
print(child.pid, flush=True)
time.sleep(60)
"""

SERVED = """
import time
from promptmint.embedded import embedded_prefect
embedded_prefect()
from prefect.server.api.server import SubprocessASGIServer
print(SubprocessASGIServer().server_process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_the_command_that_started_it(number: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    assert server.is_running()  # as long as the command lives, however silent it is
    os.kill(parent.pid, number)
    parent.wait()
    server.wait(timeout=5)


@pytest.mark.slow
def test_prefects_server_ends_with_a_command_that_was_killed(tmp_path: Path) -> None:
    settings = {"PROMPTMINT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | settings
    parent = subprocess.Popen([sys.executable, "-c", SERVED], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))
    assert "uvicorn" in server.cmdline()
    parent.kill()
    parent.wait()
    server.wait(timeout=30)
