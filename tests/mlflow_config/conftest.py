"""An MLflow of the test's own: a database made once, and an artifact to register."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an MLflow that nothing was registered in; making one takes seconds."""
    from mlflow_config.tracking import connected

    home = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTMINT_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with connected() as client:
            client.search_registered_models()
    return home / "mlflow.db"


@pytest.fixture
def mlflow_home(new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with an empty MLflow."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(new_database, home / "mlflow.db")
    monkeypatch.setenv("PROMPTMINT_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield home


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """The folder of a prompt's artifact, as far as MLflow looks into it."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "prompt.json").write_text('{"template": {"text": "{text}"}, "head": {"kind": "linear"}}')
    (folder / "provenance.json").write_text("{}")
    return folder


@pytest.fixture
def record() -> dict[str, Any]:
    """A run's record, as far as the registry reads it."""
    epochs = [{"epoch": 1, "validation_accuracy": 0.5}, {"epoch": 2, "validation_accuracy": 0.75}]
    return {
        "recipe": "tickets",
        "run_key": "a" * 64,
        "verdict": "passed",
        "reason": "passed: all of them",
        "prompt_digest": "b" * 64,
        "base_digest": "c" * 64,
        "data_digest": "d" * 64,
        "recipe_digest": "e" * 64,
        "artifact": "f" * 64,
        "settings": {"prompt": {"method": "p-tuning-v2", "tokens": 4}, "data": {"labels": ["a", "b"]}},
        "scores": {"prompt": {"accuracy": 0.75, "artifact_bytes": 100}, "zero_shot": None},
        "trained": {"prompt": {"curve": [[step, 1 / step] for step in range(1, 251)], "epochs": epochs}},
    }
