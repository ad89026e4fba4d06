"""A training as it goes on, in MLflow: a run of its own beside the one that a finished prompt is registered with.

A run that was opened here and registered later would stand half-done after each refusal, kill and retry. What lasts
less than half a minute is not shown. A process that is killed leaves its run as RUNNING; nothing reads it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mlflow_config.tracking import connected, experiment_id
from pipelines.errors import RegistryError, TransientError

AFTER_S, EVERY_S = 30.0, 5.0  # what has lasted so long is shown, and brought up to date so often
SHOWN = ("loss", "rate", "examples_per_s", "tokens_per_s", "seconds_left", "validation_loss", "validation_accuracy")


class Live:
    """Takes the lines of a worker's progress; a server that does not take them is left alone from then on."""

    def __init__(self, name: str, after_s: float = AFTER_S, every_s: float = EVERY_S) -> None:
        self.name = name
        self.run_id: str | None = None  # none as long as nothing was shown
        self._next, self._every_s = time.monotonic() + after_s, every_s
        self._heard = True

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Show one line, if it is of a training and its turn has come."""
        if not self._heard or "step" not in line or time.monotonic() < self._next:
            return
        try:
            self._log(line)
        except (TransientError, RegistryError):  # figures to look at are worth no failed training
            self._heard = False
        self._next = time.monotonic() + self._every_s

    def _log(self, line: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"{line['job']}/{key}", float(line[key]), now, line["step"]) for key in SHOWN if key in line]
        with connected() as client:
            if self.run_id is None:
                self.run_id = client.create_run(experiment_id(client), run_name=self.name).info.run_id
            client.log_batch(self.run_id, metrics=metrics)

    def end(self, status: str) -> None:
        """Say how it ended: FINISHED or FAILED."""
        if self.run_id is not None:
            with suppress(TransientError, RegistryError), connected() as client:
                client.set_terminated(self.run_id, status)


@contextmanager
def live(name: str) -> Iterator[Live]:
    """While this lasts, lines are shown in MLflow under a name."""
    shown = Live(name)
    try:
        yield shown
    except BaseException:
        shown.end("FAILED")
        raise
    shown.end("FINISHED")
