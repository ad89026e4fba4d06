"""MLflow reached: where it is, and its errors told apart into those to wait for and those to mend."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow_config.names import EXPERIMENT
from pipelines.errors import RegistryError, TransientError
from pipelines.settings import home, tracking_uri

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a task retries; the client need not wait for minutes
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@contextmanager
def connected() -> Iterator[Any]:
    """An MLflow client on the tracking server of the settings; quiet, and with our errors.

    Raises:
        TransientError: the server cannot be reached, or says that it is busy.
        RegistryError: it refuses the call.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        home().mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield mlflow.MlflowClient()
    except MlflowException as error:
        busy = error.error_code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR")
        kind = TransientError if busy else RegistryError
        raise kind(_explained(uri, error)) from error
    except (SQLAlchemyError, ConnectionError, OSError) as error:
        raise TransientError(_explained(uri, error)) from error


def experiment_id(client: Any) -> str:
    """The id of promptmint's experiment, made where it is not there yet."""
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    from pathlib import Path

    local = str(Path(home() / "mlartifacts").as_uri()) if tracking_uri().startswith("sqlite:") else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=local))


def _explained(uri: str, error: Exception) -> str:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"MLflow at {uri!r} did not do what it was asked: {first_line:.300}. What was trained is kept in the store: "
        "start MLflow ('promptmint up', or set MLFLOW_TRACKING_URI) and run the recipe again; it goes on from there."
    )
