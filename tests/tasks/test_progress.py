"""What a worker writes, in words for a person."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prefect import flow

from tasks import progress
from tasks.progress import News, StageProgress, listeners


@pytest.fixture
def heard() -> Iterator[list[News]]:
    """Everything that was told since."""
    news: list[News] = []
    listeners.append(news.append)
    yield news
    listeners.remove(news.append)


@pytest.mark.parametrize(("line", "news"), [
    ({"job": "prompt", "epoch": 2, "step": 30, "steps": 60, "loss": 0.1234, "examples_per_s": 98.7,
      "tokens_per_s": 2961.4, "seconds_left": 3.2},
     News("train", "prompt: epoch 2, loss 0.123, 99 examples/s, 2,961 tokens/s, 3 s left", 30, 60)),
    ({"job": "lora", "epoch": 1, "step": 20, "steps": 60, "loss": 0.5, "validation_accuracy": 0.875},
     News("train", "lora: epoch 1, validation accuracy 87.5 %", 20, 60)),
    ({"job": "full", "epoch": 1, "step": 7, "steps": 60, "loss": 1.0, "examples_per_s": 1.0, "tokens_per_s": 9.5,
      "seconds_left": 9.0, "note": "resumed at step 5"},
     News("train", "full: epoch 1, loss 1.000, 1 examples/s, 10 tokens/s, 9 s left (resumed at step 5)", 7, 60)),
    ({"job": "full", "epoch": 1, "step": 7, "steps": 60, "validation_accuracy": 0.5, "note": ""},
     News("train", "full: epoch 1, validation accuracy 50.0 %", 7, 60)),
    ({"job": "full", "scored": 1234}, News("train", "full: 1,234 examples scored")),
])  # fmt: skip
def test_every_line_becomes_one_sentence(heard: list[News], line: dict[str, object], news: News) -> None:
    StageProgress("train")(line)
    assert heard == [news]


def test_a_server_that_stays_away_misses_the_progress_and_the_work_goes_on(
    prefect_server: None, heard: list[News], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"job": "lora", "epoch": 1, "step": 20, "steps": 60, "loss": 0.5, "validation_accuracy": 0.875}
    asked: list[object] = []

    def gone(**artifact: object) -> None:
        asked.append(artifact)
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(progress, "create_progress_artifact", gone)

    @flow
    def work() -> str:
        StageProgress("train")(line)
        return "done"

    assert work() == "done" and len(heard) == len(asked) == 1
