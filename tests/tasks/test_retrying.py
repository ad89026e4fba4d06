"""Only what time may heal is tried again."""

from __future__ import annotations

import pytest
from prefect.client.schemas.objects import State, StateType

from pipelines.errors import DataError, LedgerConflict, StoreError, TransientError
from tasks.retrying import is_transient


@pytest.mark.parametrize(("error", "again"), [
    (TransientError("busy"), True), (StoreError("read-only"), False), (DataError("empty"), False),
    (LedgerConflict("lost"), False), (ValueError("a bug"), False), (ConnectionError("not named"), False),
])  # fmt: skip
def test_only_a_transient_error_is(error: Exception, again: bool) -> None:
    failed: State[Exception] = State(type=StateType.FAILED, data=error)
    assert is_transient(None, None, failed) is again
