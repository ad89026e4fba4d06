from __future__ import annotations

from datetime import timedelta

import pytest

from pipelines.evaluation.pages import words


@pytest.mark.parametrize(
    ("number", "spelt"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1 k"),
        (999_999, "1 M"),
        (76_808, "76.8 k"),
        (22_568_456, "22.6 M"),
        (3e12, "3 T"),
        (0.5, "0.5"),
    ],
)
def test_magnitudes(number: float, spelt: str) -> None:
    assert words.magnitude(number) == spelt


def test_sizes_durations_and_moments() -> None:
    assert [words.size(n) for n in (12, 310_303, 90_286_008, None)] == ["12 bytes", "310 kB", "90.3 MB", "–"]
    spans = (0.42, 81.2, 600, 12_600, None)
    assert [words.duration(s) for s in spans] == ["0.4 s", "81 s", "10 min", "3.5 h", "–"]
    assert words.moment("2026-11-21T13:15:59+00:00") == "2026-11-21 13:15 UTC"
    assert words.moment(None) == words.percent(None) == words.count(None) == "–"


def test_ages() -> None:
    ages = [words.age(timedelta(days=days)) for days in (0.9, 1, 12, 50, 430)]
    assert ages == ["today", "1 day", "12 days", "7 weeks", "14 months"]
