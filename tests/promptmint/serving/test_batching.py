"""The queue: what waits is answered together, in order, never split, and never more of it than allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmint.serving.batching import Batcher, QueueFull, Row


class Gate:
    """Answers each row with its text in capitals, once it is open, and remembers the batches."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        self.entered.set()
        assert self.open.wait(10)
        self.batches.append([text for _, text in rows])
        if any(text == "bad" for _, text in rows):
            raise ValueError("bad")
        return [text.upper() for _, text in rows]


@contextmanager
def held(batch_rows: int = 4, waiting_rows: int = 100) -> Iterator[tuple[Gate, Batcher[str]]]:
    """A batcher whose first batch, of one row, is under way and held, so that what is submitted waits."""
    gate = Gate()
    batcher: Batcher[str] = Batcher(gate, batch_rows, waiting_rows)
    first = batcher.submit([("p", "first")])
    assert gate.entered.wait(10)
    try:
        yield gate, batcher
    finally:
        gate.open.set()
        batcher.close()
        assert first.result(0) == ["FIRST"]


def texts(count: int, start: int = 0) -> list[Row]:
    return [("p", f"t{number}") for number in range(start, start + count)]


@given(sizes=st.lists(st.integers(1, 9), max_size=12), batch_rows=st.integers(1, 6))
def test_every_request_is_answered_in_order_and_never_split(sizes: list[int], batch_rows: int) -> None:
    with held(batch_rows, 1000) as (gate, batcher):
        asked = [texts(size, 100 * number) for number, size in enumerate(sizes)]
        futures = [batcher.submit(rows) for rows in asked]
        assert batcher.waiting == sum(sizes)
        gate.open.set()
        for rows, future in zip(asked, futures, strict=True):
            assert future.result(10) == [text.upper() for _, text in rows]
    assert [text for batch in gate.batches for text in batch] == [
        "first",
        *(text for rows in asked for _, text in rows),
    ]
    for rows in asked:
        assert sum(rows[0][1] in batch and rows[-1][1] in batch for batch in gate.batches) == 1
    assert all(len(batch) <= max(batch_rows, max(sizes, default=1)) for batch in gate.batches)


def test_what_waits_together_is_answered_together() -> None:
    with held(batch_rows=4) as (gate, batcher):
        for number in range(6):
            batcher.submit(texts(1, number))
        gate.open.set()
    assert [len(batch) for batch in gate.batches] == [1, 4, 2]


def test_more_than_may_wait_is_refused_whole() -> None:
    with held(waiting_rows=5) as (gate, batcher):
        kept = batcher.submit(texts(4))
        with pytest.raises(QueueFull, match=r"4 rows wait for an answer and 5 may\. Try again in 1 s") as full:
            batcher.submit(texts(2))
        assert full.value.retry_after_s == 1 and batcher.waiting == 4
        last = batcher.submit(texts(1))
        gate.open.set()
        assert len(kept.result(10)) == 4 and len(last.result(10)) == 1
        assert batcher.waiting == 0
        assert len(batcher.submit(texts(5)).result(10)) == 5


def test_only_the_request_at_fault_fails() -> None:
    with held(batch_rows=10) as (gate, batcher):
        futures: list[Any] = [batcher.submit([("p", text)]) for text in ("a", "bad", "b")]
        gate.open.set()
        assert futures[0].result(10) == ["A"] and futures[2].result(10) == ["B"]
        with pytest.raises(ValueError, match="bad"):
            futures[1].result(10)
        assert batcher.submit([("p", "c")]).result(10) == ["C"], "and the thread lives on"


def test_who_gave_up_is_passed_over() -> None:
    with held() as (gate, batcher):
        gone, kept = batcher.submit(texts(1)), batcher.submit(texts(1, 1))
        assert gone.cancel()
        gate.open.set()
        assert kept.result(10) == ["T1"]
    assert "t0" not in [text for batch in gate.batches for text in batch]


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    with held() as (gate, batcher):
        waiting = batcher.submit(texts(3))
        closing = threading.Thread(target=batcher.close)
        closing.start()
        gate.open.set()
        closing.join(10)
        assert not closing.is_alive() and len(waiting.result(0)) == 3
        with pytest.raises(QueueFull):
            batcher.submit(texts(1))
