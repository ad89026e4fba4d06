"""Which failures are tried again: those of a network or a lock, never those of data, code or a person."""

from __future__ import annotations

from typing import Any, TypedDict

from pipelines.errors import TransientError


class Retrying(TypedDict):
    """The arguments of a Prefect task that say when it is tried again."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Any


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failed task run ended in an error that time may heal."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


RETRYING = Retrying(retries=3, retry_delay_seconds=[1, 5, 15], retry_condition_fn=is_transient)
