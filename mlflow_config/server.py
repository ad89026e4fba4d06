"""How an MLflow server is started on this machine: its database, its artifacts, its command and environment."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.settings import tracking_uri

_HERE = ("127.0.0.1", "localhost", "::1")


def backend_uri(home: Path, port: int) -> str | None:
    """The database that a server on `port` keeps its runs in; None where MLFLOW_TRACKING_URI names somebody's server.

    A tracking URI that is this very server counts as not set: a person who has exported the URL that `promptmint up`
    printed can call it again.
    """
    uri = tracking_uri()
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return uri
    ours = parts.scheme == "http" and parts.hostname in _HERE and parts.port == port
    return f"sqlite:///{home}/mlflow.db" if ours else None


def server_command(home: Path, port: int) -> list[str]:
    """The command of a server that only this machine can reach.

    New experiments keep their artifacts under `home/mlartifacts` by path, as clients without a server do: both see the
    same files.
    """
    artifacts = (home / "mlartifacts").as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--default-artifact-root", artifacts, "--no-serve-artifacts"),
    ]


def server_environment(backend: str) -> dict[str, str]:
    """What that server finds in its environment; a database's password belongs here and not on a command line."""
    return {
        "MLFLOW_BACKEND_STORE_URI": backend,
        "MLFLOW_REGISTRY_STORE_URI": backend,
        "MLFLOW_TRACKING_URI": backend,  # the caller's may be this server's own URL
        "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow takes DO_NOT_TRACK for a yes only when it is the word `true`
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its judge jobs: processes that nothing here asks for
    }
