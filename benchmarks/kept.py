"""Results of benchmarks with what they rest on, each in a file of its own that is never changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.digests import canonical_json

LEARNING = ("torch", "transformers", "peft")  # the packages that decide the figures of most benchmarks


def keep(path: Path, result: dict[str, Any], packages: Iterable[str] = LEARNING) -> Path:
    """Write a result down with its command, commit, versions, machine and time.

    Raises:
        FileExistsError: there is such a result already; it is left as it is.
    """
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    provenance = {
        "command": sys.argv,
        "commit": commit,
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "machine": _machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(canonical_json({**result, **provenance}) + b"\n")
    return path


def another(folder: Path, topic: str) -> Path:
    """Where one more result of a topic goes, beside those there are."""
    return folder / f"{topic}-{secrets.token_hex(4)}.json"


def _machine() -> dict[str, Any]:
    """What it ran on, and how busy that was; `threads` where torch is at work."""
    torch = sys.modules.get("torch")
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        **({"threads": torch.get_num_threads()} if torch else {}),
    }
