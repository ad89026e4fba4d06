"""Continuous micro-batching: requests wait in one bounded queue, and a free engine takes what is there.

Nobody waits for a batch to fill: alone, a request is a batch of its own; under load, batches grow by themselves. A
request is never split over two batches, so that all its rows meet the same versions.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipelines.errors import PromptmintError

Row = TypeVar("Row")  # which prompt, and the text
Result = TypeVar("Result")


class QueueFull(PromptmintError):
    """More rows wait than may; `retry_after_s` is when the queue will be shorter, at the speed of the last batches."""

    def __init__(self, waiting: int, allowed: int, retry_after_s: int) -> None:
        super().__init__(
            f"{waiting} rows wait for an answer and {allowed} may. Try again in {retry_after_s} s, or ask less at once."
        )
        self.retry_after_s = retry_after_s


@dataclass
class Asked(Generic[Row, Result]):
    """One request on its way to an answer."""

    rows: Sequence[Row]
    answered: Future[list[Result]] = field(default_factory=Future)


class Batcher(Generic[Row, Result]):
    """A queue, and the one thread that answers it."""

    def __init__(
        self, answer: Callable[[Sequence[Row]], list[Result]], batch_rows: int, waiting_rows: int,
        observe: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:  # fmt: skip
        """Start the thread.

        Args:
            answer: gives a result per row.
            batch_rows: where a batch ends; a single request may be larger, and is then a batch alone.
            waiting_rows: how many may wait.
            observe: told the rows and seconds of every batch.
        """
        self._answer, self._observe = answer, observe
        self._batch_rows, self._waiting_rows = batch_rows, waiting_rows
        self._queue: deque[Asked[Row, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._row_s = 0.0  # seconds per row, of the last batches
        self.waiting = 0
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row]) -> Future[list[Result]]:
        """The results of these rows, in their order, once there are any. Raises `QueueFull`."""
        asked: Asked[Row, Result] = Asked(rows)
        with self._changed:
            if self._closed or self.waiting + len(rows) > self._waiting_rows:
                raise QueueFull(self.waiting, self._waiting_rows, max(1, math.ceil(self.waiting * self._row_s)))
            self._queue.append(asked)
            self.waiting += len(rows)
            self._changed.notify()
        return asked.answered

    def close(self) -> None:
        """Return when all that waited is answered; nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            batch = [asked for asked in batch if asked.answered.set_running_or_notify_cancel()]
            start = time.perf_counter()
            self._resolve(batch)
            seconds, rows = time.perf_counter() - start, sum(len(asked.rows) for asked in batch)
            if rows:
                self._row_s += 0.2 * (seconds / rows - self._row_s)
                self._observe(rows, seconds)

    def _take(self) -> list[Asked[Row, Result]]:
        """The requests of the next batch, waited for; none: the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            batch: list[Asked[Row, Result]] = []
            rows = 0
            while self._queue and (not batch or rows + len(self._queue[0].rows) <= self._batch_rows):
                batch.append(self._queue.popleft())
                rows += len(batch[-1].rows)
            self.waiting -= rows
            return batch

    def _resolve(self, batch: Sequence[Asked[Row, Result]]) -> None:
        """Answer a batch; where that fails, each request alone, so that only the one at fault hears of it."""
        try:
            results = self._answer([row for asked in batch for row in asked.rows])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answered.set_exception(error)
            else:
                for asked in batch:
                    self._resolve([asked])
            return
        start = 0
        for asked in batch:
            asked.answered.set_result(results[start : start + len(asked.rows)])
            start += len(asked.rows)
