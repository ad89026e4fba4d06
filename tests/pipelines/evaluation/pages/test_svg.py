from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from pipelines.evaluation.pages.svg import Scale, across, down, tag


def test_an_element_escapes_all_but_markup() -> None:
    made = tag("text", "a < b", tag("b", "&"), x="1%", class_='"', text_anchor="end")
    assert made == Markup('<text x="1%" class="&#34;" text-anchor="end">a &lt; b<b>&amp;</b></text>')


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (86.1, 91.3, [88, 90]),
        (-5.4, 1.2, [-4, -2, 0]),
        (0, 0.31, [0, 0.1, 0.2, 0.3]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100).ticks() == ticks


def test_a_logarithmic_scale_has_powers_of_ten() -> None:
    scale = across([300, 22_000_000], log=True)
    assert scale.ticks() == [1e3, 1e4, 1e5, 1e6, 1e7]
    assert scale(1e5) - scale(1e4) == pytest.approx(scale(1e4) - scale(1e3), abs=0.02)


def test_large_values_stand_higher() -> None:
    scale = down([10, 20], 200)
    assert 12 <= scale(20) < scale(10) <= 200 - 34


finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(finite, min_size=1, max_size=20))
def test_every_value_has_its_place_in_the_plot(values: list[float]) -> None:
    scale = across(values)
    assert all(scale.start <= scale(value) <= scale.end for value in values)
    ticks = scale.ticks()
    assert len(ticks) <= 6
    assert all(scale.start - 0.01 <= scale(tick) <= scale.end + 0.01 for tick in ticks)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=20))
def test_so_has_every_value_on_a_logarithmic_scale(values: list[float]) -> None:
    scale = across(values, log=True)
    assert all(scale.start <= scale(value) <= scale.end for value in values)
    assert len(scale.ticks()) <= 6
