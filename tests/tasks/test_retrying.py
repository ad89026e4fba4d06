"""Only what time may heal is tried again."""

from __future__ import annotations

import httpx
import pytest
from prefect.client.schemas.objects import State, StateType

from pipelines.errors import DataError, LedgerConflict, StoreError, TransientError
from tasks.retrying import is_transient, telling_prefect


@pytest.mark.parametrize(("error", "again"), [
    (TransientError("busy"), True), (StoreError("read-only"), False), (DataError("empty"), False),
    (LedgerConflict("lost"), False), (ValueError("a bug"), False), (ConnectionError("not named"), False),
])  # fmt: skip
def test_only_a_transient_error_is(error: Exception, again: bool) -> None:
    failed: State[Exception] = State(type=StateType.FAILED, data=error)
    assert is_transient(None, None, failed) is again


def test_a_prefect_that_is_away_is_asked_again_and_our_own_errors_are_not() -> None:
    with pytest.raises(TransientError, match=r"(?s)does not take what it is told.*`promptmint up`"), telling_prefect():
        httpx.get("http://127.0.0.1:9/api", trust_env=False)
    with pytest.raises(DataError, match="empty"), telling_prefect():
        raise DataError("empty")
