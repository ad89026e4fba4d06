"""Which failures are tried again: those of a network or a lock, never those of data, code or a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import httpx

from pipelines.errors import TransientError


class Retrying(TypedDict):
    """The arguments of a Prefect task that say when it is tried again."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Any


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failed task run ended in an error that time may heal."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


# A server that is started again is back within a minute and a half, on a busy machine too.
RETRYING = Retrying(retries=4, retry_delay_seconds=[1, 5, 15, 30], retry_condition_fn=is_transient)


@contextmanager
def telling_prefect() -> Iterator[None]:
    """A block that asks Prefect's server; one that is away for a while raises `TransientError`, and is asked again."""
    try:
        yield
    except httpx.HTTPError as error:
        raise TransientError(
            f"Prefect's server does not take what it is told: {error}. Check that it runs (`promptmint up`); then run "
            "the recipe again: what was finished is in the store."
        ) from error
