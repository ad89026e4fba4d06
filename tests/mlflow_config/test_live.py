"""A training can be watched in MLflow while it goes on, and never waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_config import live as module
from mlflow_config.live import Live, live
from mlflow_config.tracking import connected

LINE = {"job": "prompt", "epoch": 1, "step": 3, "steps": 9, "loss": 0.5, "rate": 0.03, "examples_per_s": 20.0,
        "tokens_per_s": 400.0, "seconds_left": 8.0, "note": ""}  # fmt: skip


def test_what_lasts_is_shown(mlflow_home: Path) -> None:
    shown = Live("tickets, training", after_s=0, every_s=0)
    shown({"job": "prompt", "read": 3, "texts": 9})  # nothing to draw
    assert shown.run_id is None
    shown(LINE)
    shown({**LINE, "step": 4, "loss": 0.25, "validation_accuracy": 0.75})
    with connected() as client:
        run = client.get_run(shown.run_id)
        assert run.info.run_name == "tickets, training" and run.info.status == "RUNNING"
        assert run.data.metrics == {
            "prompt/loss": 0.25, "prompt/rate": 0.03, "prompt/examples_per_s": 20.0, "prompt/tokens_per_s": 400.0,
            "prompt/seconds_left": 8.0, "prompt/validation_accuracy": 0.75,
        }  # fmt: skip
        assert [(each.step, each.value) for each in client.get_metric_history(shown.run_id, "prompt/loss")] == [
            (3, 0.5), (4, 0.25),
        ]  # fmt: skip
        shown.end("FINISHED")
        assert client.get_run(shown.run_id).info.status == "FINISHED"


def test_what_is_over_soon_leaves_nothing_there(mlflow_home: Path) -> None:
    with live("tickets") as shown:
        shown(LINE)
    assert shown.run_id is None


def test_a_server_that_is_away_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    asked: list[object] = []

    def counted() -> object:
        asked.append(1)
        return connected()

    monkeypatch.setattr(module, "connected", counted)
    shown = Live("tickets", after_s=0, every_s=0)
    shown(LINE)
    shown(LINE)
    shown.end("FAILED")
    assert len(asked) == 1 and shown.run_id is None
