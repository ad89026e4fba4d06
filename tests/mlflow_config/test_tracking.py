"""Connecting: errors to wait for, errors to mend, and the experiment that is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_config.tracking import connected, experiment_id
from pipelines.errors import RegistryError, TransientError


def test_a_server_that_is_gone_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(TransientError, match=r"MLflow at 'http://127\.0\.0\.1:9'.*run the recipe again"),
        connected() as client,
    ):
        client.search_registered_models()


def test_a_call_that_mlflow_refuses_is_not(mlflow_home: Path) -> None:
    with pytest.raises(RegistryError, match=r"nobody"), connected() as client:
        client.get_registered_model("nobody")


@pytest.mark.parametrize("error", [ConnectionError("reset"), OSError("no route")])
def test_a_network_that_breaks_is_worth_another_try(mlflow_home: Path, error: OSError) -> None:
    with pytest.raises(TransientError, match=str(error)), connected():
        raise error


def test_a_database_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and never was one")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises((TransientError, RegistryError), match="did not do what it was asked"), connected() as client:
        client.search_registered_models()


def test_what_is_not_about_mlflow_passes_through(mlflow_home: Path) -> None:
    with pytest.raises(KeyError), connected():
        raise KeyError("mine")


def test_the_experiment_is_made_once_with_its_artifacts_in_our_home(mlflow_home: Path) -> None:
    with connected() as client:
        assert experiment_id(client) == experiment_id(client)
        experiment = client.get_experiment_by_name("promptmint")
    assert experiment.artifact_location == (mlflow_home / "mlartifacts").as_uri()
