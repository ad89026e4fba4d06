"""What a run costs: seconds, processor-seconds, GPU-seconds, and an estimate of the energy.

    kWh = (processor-seconds * core_watts + GPU-seconds * gpu_watts) / 3,600,000

Processor-seconds are the operating system's count for this process and for the workers that it has waited for: one core
busy for a second is one of them. A worker on a GPU holds it, busy or not: GPU-seconds are its seconds of wall clock.
The watts are the compute profile's: a rated power, not a measurement. Memory, disks, cooling and servers are left out.

Costs decide nothing and are part of no key: the same run costs something else on another machine.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

JOULES_PER_KWH = 3_600_000

_gpu_seconds = 0.0  # of all launches of this process so far


@dataclass(frozen=True)
class Cost:
    """What something took."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    gpu_seconds: float = 0.0
    kwh: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        gpu = f"{self.gpu_seconds:,.0f} GPU-seconds, " if self.gpu_seconds else ""
        return f"{self.seconds:,.0f} s, {self.processor_seconds:,.0f} processor-seconds, {gpu}about {self.kwh:.2g} kWh"

    def shared_by(self, number: int) -> Cost:
        """The mean over a number of things that cost this together."""
        return Cost(*(value / number for value in astuple(self)))


@dataclass
class Meter:
    """Counts what each stage of a run costs, at the power that a compute profile names."""

    core_watts: float
    gpu_watts: float
    stages: dict[str, Cost] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done in here as one stage."""
        clock, processor, gpu = _counted()
        yield
        now, busy, held = _counted()
        joules = (busy - processor) * self.core_watts + (held - gpu) * self.gpu_watts
        self.stages[name] = Cost(now - clock, busy - processor, held - gpu, joules / JOULES_PER_KWH)

    def told(self) -> dict[str, Any]:
        """`{stages, total, core_watts, gpu_watts}` as JSON: what a run's record says of its cost."""
        stages = {name: _rounded(cost) for name, cost in self.stages.items()}
        total = _rounded(sum(self.stages.values(), Cost()))
        return {"stages": stages, "total": total, "core_watts": self.core_watts, "gpu_watts": self.gpu_watts}


def hold_gpus(number: int, seconds: float) -> None:
    """Count GPUs that workers of this process held."""
    global _gpu_seconds
    _gpu_seconds += number * seconds


def total_of(record: Mapping[str, Any] | None) -> Cost | None:
    """What a run cost, as `Meter.told` wrote it down; None where it did not."""
    return Cost(**record["total"]) if record else None


def _counted() -> tuple[float, float, float]:
    """Seconds of the clock, of processors and of GPUs, each since some moment."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used), _gpu_seconds


def _rounded(cost: Cost) -> dict[str, float]:
    return {key: float(f"{value:.4g}") if key == "kwh" else round(value, 2) for key, value in asdict(cost).items()}
