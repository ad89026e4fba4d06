"""What promptmint needs on this machine, looked at one thing after the other."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import uuid
from collections.abc import Callable
from typing import TypedDict

from pipelines.errors import PromptmintError
from pipelines.settings import home, ledger_uri, store_uri, tracking_uri
from pipelines.store.opening import open_store

PIPELINE = ("prefect", "torch", "transformers", "datasets", "mlflow", "boto3", "pandera", "great-expectations", "peft")
NEEDED_BYTES = 2 * 1024**3


class Finding(TypedDict):
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str


def examine() -> list[Finding]:
    """Everything a run needs, each looked at even where another is amiss."""
    checks: dict[str, Callable[[], str]] = {
        "packages": _packages,
        "store": lambda: _store(store_uri()),
        "ledger": lambda: _ledger(ledger_uri()),
        "MLflow": _mlflow,
        "disk": _disk,
        "devices": _devices,
    }
    return [_finding(what, check) for what, check in checks.items()]


def _finding(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, ok=True, found=check())
    except (PromptmintError, OSError, ImportError) as error:
        return Finding(what=what, ok=False, found=str(error))


def _packages() -> str:
    missing = []
    for name in PIPELINE:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise ImportError(f"{', '.join(missing)} not installed: pip install 'promptmint[pipeline]' to mint prompts")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PIPELINE)


def _store(uri: str) -> str:
    store, key = open_store(uri), f"doctor/{uuid.uuid4().hex}"
    store.write(key, b"")
    store.delete(key)
    return f"{uri} can be written"


def _ledger(uri: str) -> str:
    store, key = open_store(uri), f"doctor/{uuid.uuid4().hex}"
    store.create(key, b"")
    store.delete(key)
    return f"{uri} creates exclusively"


def _mlflow() -> str:
    from mlflow_config.registry import registered

    return f"{tracking_uri()} answers; {len(registered())} soft prompts registered"


def _disk() -> str:
    place = next(path for path in (home(), *home().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        raise OSError(f"only {free / 1024**3:.1f} GiB free at {str(place)!r}; a run wants {NEEDED_BYTES / 1024**3:.0f}")
    return f"{free / 1024**3:.0f} GiB free at {place}"


def _devices() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{os.cpu_count()} CPU cores, {', '.join(gpus) or 'no GPU'}"
