"""How many runs work at once, and for how long.

A limit is one of Prefect's global concurrency limits. Who holds a slot of it renews a lease; a run that was killed does
not, and its slot is free again when the lease ends. Whoever finds no slot free waits: nothing is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.utilities.timeout import timeout

from pipelines.errors import TrainingError
from tasks.retrying import telling_prefect

LEASE_S = 60.0  # the shortest that Prefect grants: for so long a killed run keeps others waiting


@contextmanager
def one_of(slots: int, name: str) -> Iterator[None]:
    """Wait for one of the slots of a limit, and hold it.

    A server that is away for longer than a lease does not end the run: what two runs of one recipe could spoil, the
    store and the ledger guard by themselves. Without a server (`promptmint run` on its own) there is nobody to wait
    for.
    """
    if not PREFECT_API_URL.value():
        yield
        return
    _ensure(name, slots)
    get_run_logger().info("Waiting for one of %s slot(s) of %r", slots, name)
    slot = ExitStack()
    slot.enter_context(concurrency(name, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False))
    try:
        get_run_logger().info("Has a slot of %r", name)
        yield
    finally:
        with suppress(httpx.HTTPError):  # nobody takes it back now: it is free when its lease ends
            slot.close()


def turn_of(recipe: str) -> str:
    """The limit by which runs of a recipe follow each other."""
    return f"promptmint-recipe-{recipe}"


def taken(name: str) -> bool:
    """Whether somebody holds a slot of a limit now. Raises `TransientError` where the server does not say."""
    with telling_prefect(), get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name).active_slots > 0
        except ObjectNotFound:  # nobody ever held one
            return False


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """End what takes longer. Raises `TrainingError`; workers that were started are ended."""
    try:
        with timeout(seconds, timeout_exc_type=_OutOfTime):
            yield
    except _OutOfTime:
        raise TrainingError(
            f"The run took longer than run_timeout_s = {seconds} and was ended. What it finished is in the store, and "
            "the same recipe goes on from there. Raise the limit in the compute profile if that is too little."
        ) from None


class _OutOfTime(TimeoutError):
    """Our own end of time, told apart from that of a network."""


def _ensure(name: str, slots: int) -> None:
    """The limit is there, with so many slots."""
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
            return
        if client.read_global_concurrency_limit_by_name(name).limit != slots:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots))
