"""Rows are shared out among passes in the cheapest way there is."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.buckets import buckets


def cost(passes: list[list[int]], lengths: list[int], pass_cost: int) -> int:
    return sum(pass_cost + len(places) * max(lengths[place] for place in places) for places in passes)


def cheapest(lengths: list[int], most_rows: int, pass_cost: int) -> int:
    """By trying every way to number the rows with passes."""
    found = []
    for numbers in itertools.product(range(len(lengths)), repeat=len(lengths)):
        passes = [[place for place, n in enumerate(numbers) if n == number] for number in set(numbers)]
        if max(map(len, passes)) <= most_rows:
            found.append(cost(passes, lengths, pass_cost))
    return min(found)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 5), st.integers(0, 40))
def test_no_way_is_cheaper(lengths: list[int], most_rows: int, pass_cost: int) -> None:
    assert cost(buckets(lengths, most_rows, pass_cost), lengths, pass_cost) == cheapest(lengths, most_rows, pass_cost)


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 64))
def test_every_row_once_and_the_longest_first(lengths: list[int], most_rows: int) -> None:
    passes = buckets(lengths, most_rows, 64)
    assert sorted(itertools.chain(*passes)) == list(range(len(lengths)))
    assert all(1 <= len(places) <= most_rows for places in passes)
    in_order = [lengths[place] for places in passes for place in places]
    assert in_order == sorted(lengths, reverse=True)


def test_a_long_text_does_not_pad_many_short_ones() -> None:
    assert buckets([128, *[8] * 20], 64, 64) == [[0], list(range(1, 21))]
    assert buckets([128, 120, 126], 64, 64) == [[0, 2, 1]]
