"""Prefect for one command: its database under our home, its server started with the command and ended with it."""

from __future__ import annotations

import os
import signal
import subprocess

from pipelines.errors import StoreError
from pipelines.settings import home


def embedded_prefect() -> None:
    """Prefect without a server of its own, unless PREFECT_API_URL names one.

    Raises:
        StoreError: the folder for its database cannot be made.
    """
    folder = home() / "prefect"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # Prefect makes one folder for itself, but none above it
    except OSError as error:
        raise StoreError(
            f"Cannot make the folder {str(folder)!r}: {error.strerror}. Set PROMPTMINT_HOME to a folder you own."
        ) from None
    os.environ.setdefault("PREFECT_HOME", str(folder))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 are few on a busy machine
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect.client.orchestration import get_client
    from prefect.server.api.server import SubprocessASGIServer

    # The server inherits the blocked signal: Ctrl-C is for the run, and the server must live to be told of its end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if server := SubprocessASGIServer().server_process:
        end_with_us(server.pid)


def end_with_us(pid: int) -> None:
    """Have a process end when this one has, even by kill -9: a shell waits for that, and then ends it.

    The shell reads from a pipe that nobody else holds and nobody writes to: it closes when this process is gone.
    """
    reading, _ = os.pipe()  # the second end stays open as long as we live, and children do not inherit it
    command = ["sh", "-c", 'read -r _; kill "$0" 2>/dev/null', str(pid)]
    subprocess.Popen(
        command, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(reading)
