"""How far things are: told to whoever listens in this process, and to Prefect as a progress artifact."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

EVERY_S = 2.0  # between two updates of an artifact


@dataclass(frozen=True)
class News:
    """Something a person may want to see now."""

    stage: str  # of the flow
    what: str  # one line
    step: int = 0
    steps: int = 0  # 0: this stage does not count


listeners: list[Callable[[News], None]] = []  # the terminal, where there is one


def tell(news: News) -> None:
    """Pass news on to every listener."""
    for listener in listeners:
        listener(news)


class StageProgress:
    """The progress of one stage's jobs: every line of a worker becomes news, and from time to time an artifact."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._artifacts: dict[str, tuple[UUID, float]] = {}

    def __call__(self, line: dict[str, Any]) -> None:
        """Take one line of a worker's progress file."""
        job, step, steps = line["job"], line.get("step", 0), line.get("steps", 0)
        tell(News(self.stage, _in_words(line), step, steps))
        if steps and FlowRunContext.get():
            with suppress(httpx.HTTPError):  # a server that is away misses this, and the work goes on
                self._update(job, 100 * step / steps, _in_words(line))

    def _update(self, job: str, percent: float, words: str) -> None:
        known = self._artifacts.get(job)
        if known is None:
            key = f"{self.stage}-{job}".replace("_", "-")
            made: Any = create_progress_artifact(progress=percent, key=key, description=words)
            self._artifacts[job] = (made, time.monotonic())
        elif percent >= 100 or time.monotonic() - known[1] > EVERY_S:
            update_progress_artifact(known[0], progress=percent, description=words)
            self._artifacts[job] = (known[0], time.monotonic())


def _in_words(line: dict[str, Any]) -> str:
    return _how_far(line) + (f" ({line['note']})" if line.get("note") else "")


def _how_far(line: dict[str, Any]) -> str:
    if "scored" in line:
        return f"{line['job']}: {line['scored']:,} examples scored"
    if "texts" in line:
        return f"{line['job']}: {line['read']:,} of {line['texts']:,} texts read, once for all epochs"
    if "validation_accuracy" in line:
        return f"{line['job']}: epoch {line['epoch']}, validation accuracy {100 * line['validation_accuracy']:.1f} %"
    return (
        f"{line['job']}: epoch {line['epoch']}, loss {line['loss']:.3f}, {line['examples_per_s']:.0f} examples/s, "
        f"{line['tokens_per_s']:,.0f} tokens/s, {line['seconds_left']:.0f} s left"
    )
