"""What Prometheus is told: requests, batches, the queue, which versions serve, and how challengers compare."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "promptmint", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered", ["path", "status"], **ours)
        self.seconds = Histogram("request_seconds", "Time to answer", ["path"], buckets=SECONDS, **ours)
        self.rows = Counter("rows", "Texts answered", ["prompt", "version"], **ours)
        self.batch_rows = Histogram("batch_rows", "Rows in a batch", buckets=ROWS, **ours)
        self.batch_seconds = Histogram("batch_seconds", "Time of a batch", buckets=SECONDS, **ours)
        self.waiting = Gauge("waiting_rows", "Rows that wait for a batch", **ours)
        self.version = Gauge("served_version", "The version a reference stands for", ["prompt"], **ours)
        self.stale = Gauge("stale", "1 where the last look at registry or store failed", ["prompt"], **ours)
        self.swaps = Counter("swaps", "Changes of version under way", ["prompt"], **ours)
        self.shadows = Counter("shadow_rows", "Texts that a challenger answered too", ["prompt", "agreed"], **ours)
        ProcessCollector(registry=self.registry)

    def batch(self, rows: int, seconds: float) -> None:
        """Note a batch."""
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
