"""Turns and time limits, on a real Prefect server."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import ExitStack

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.errors import TrainingError
from tasks.limits import no_longer_than, one_of


@pytest.mark.parametrize("slots", [1, 2])
def test_no_more_than_so_many_work_at_once_and_nobody_is_dropped(prefect_server: None, slots: int) -> None:
    name, working, most, ended, full = f"turn-{uuid.uuid4().hex}", [0], [0], [], threading.Event()

    @flow
    def work(number: int) -> None:
        with one_of(slots, name):
            working[0] += 1
            most[0] = max(most[0], working[0])
            if working[0] == slots:
                full.set()
            full.wait(20)  # threads start late on a busy machine
            time.sleep(0.3)
            working[0] -= 1
        ended.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == slots and sorted(ended) == [0, 1, 2, 3]


def test_a_slot_is_given_back_by_a_run_that_fails(prefect_server: None) -> None:
    @flow
    def fail() -> None:
        with one_of(1, "of-the-failing"):
            raise ValueError("no")

    for _ in range(2):  # the second would wait for ever
        with pytest.raises(ValueError, match="no"):
            fail()


def test_the_number_of_slots_is_what_the_last_profile_says(prefect_server: None) -> None:
    @flow
    def hold(slots: int) -> int:
        with one_of(slots, "of-a-profile"), get_client(sync_client=True) as client:
            return int(client.read_global_concurrency_limit_by_name("of-a-profile").limit)

    assert [hold(1), hold(3), hold(2)] == [1, 3, 2]


def test_work_that_is_done_stays_done_when_the_server_dies_before_the_slot_is_given_back(prefect_server: None) -> None:
    @flow
    def work() -> str:
        with ExitStack() as gone, one_of(1, "of-the-orphaned"):
            gone.enter_context(temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}))
        return "done"

    assert work() == "done"


def test_without_a_server_there_is_nobody_to_wait_for() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), one_of(1, "nobody"), one_of(1, "nobody"):
        pass


@pytest.mark.timeout(method="thread")  # the other method takes the alarm signal, which Prefect then does without
def test_what_takes_too_long_is_ended_and_says_what_to_do() -> None:
    start = time.monotonic()
    with pytest.raises(TrainingError, match=r"longer than run_timeout_s = 1 .*compute profile"), no_longer_than(1):
        time.sleep(20)
    assert time.monotonic() - start < 5


def test_what_ends_in_time_or_by_its_own_error_is_left_alone() -> None:
    with no_longer_than(60):
        pass
    with pytest.raises(TimeoutError, match="the network"), no_longer_than(60):
        raise TimeoutError("the network")
