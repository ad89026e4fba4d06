"""What is spent is counted: by the clock, by processors, of this process and of those it waited for, and by GPUs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pipelines.costs import JOULES_PER_KWH, Cost, Meter, hold_gpus, total_of

BUSY = "import time\nwhile time.process_time() < 0.4: pass"


def test_a_worker_that_was_waited_for_is_counted_and_sleep_is_not() -> None:
    meter = Meter(core_watts=10.0, gpu_watts=100.0)
    with meter.stage("train"):
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    with meter.stage("wait"):
        time.sleep(0.2)
    train, wait = meter.stages["train"], meter.stages["wait"]
    assert 0.4 <= train.processor_seconds < 2 and train.gpu_seconds == 0
    assert wait.seconds >= 0.2 and wait.processor_seconds < 0.1
    assert train.kwh == pytest.approx(10.0 * train.processor_seconds / JOULES_PER_KWH)


def test_gpus_are_counted_as_long_as_they_are_held() -> None:
    meter = Meter(core_watts=0.0, gpu_watts=360.0)
    hold_gpus(1, 9.0)  # before this stage
    with meter.stage("train"):
        hold_gpus(4, 2500.0)
    assert meter.stages["train"].gpu_seconds == 10_000.0
    assert meter.stages["train"].kwh == pytest.approx(1.0)


def test_what_a_record_says_adds_up_and_is_read_again() -> None:
    meter = Meter(12.0, 300.0, {"a": Cost(1.0, 2.0, 0.0, 0.1234567), "b": Cost(0.5, 0.25, 8.0, 1.0)})
    told = meter.told()
    assert told["stages"]["a"]["kwh"] == 0.1235 and (told["core_watts"], told["gpu_watts"]) == (12.0, 300.0)
    assert total_of(told) == Cost(1.5, 2.25, 8.0, 1.123)
    assert total_of(None) is None
    assert str(total_of(told)) == "2 s, 2 processor-seconds, 8 GPU-seconds, about 1.1 kWh"
    assert "GPU" not in str(Cost(9, 9))
