"""Prefect inside a command: flows run without a server that somebody has to start."""

from __future__ import annotations

import os
import signal

from pipelines.errors import StoreError
from pipelines.settings import home


def embedded_prefect() -> None:
    """Prefect without a server of its own: its database under our home, unless PREFECT_API_URL names a server."""
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

    # The server inherits the blocked signal: Ctrl-C is for the run, and the server must live to be told of its end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
