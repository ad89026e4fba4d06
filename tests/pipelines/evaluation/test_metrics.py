from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.evaluation.metrics import macro_f1, summary, wilson
from pipelines.evaluation.scores import Scores


def test_the_summary_of_a_model_that_is_right_8_times_in_10(answered: Callable[[list[bool]], Scores]) -> None:
    made = summary(answered([True] * 8 + [False] * 2))
    assert made["accuracy"] == 0.8
    assert made["n"] == 10
    # Published for 8 of 10 at 95 %: 0.4902 to 0.9433.
    assert (made["low"], made["high"]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_the_confidence_is_two_sided() -> None:
    from scipy.stats import binomtest

    for confidence in (0.8, 0.95, 0.99):
        expected = binomtest(37, 120).proportion_ci(confidence, method="wilson")
        assert wilson(37, 120, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_estimate_and_stays_in_range(sample: tuple[int, int]) -> None:
    successes, n = sample
    low, high = wilson(successes, n, 0.95)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


def test_macro_f1_weighs_every_class_that_occurs_alike() -> None:
    label, prediction = np.array([0, 0, 0, 1, 3], np.int32), np.array([0, 0, 1, 1, 4], np.int32)
    scores = Scores(tuple("abcde"), label, prediction, np.ones(5, np.float32))
    # class 0: 4/5, class 1: 2/3, class 2: never seen, classes 3 and 4: 0
    assert macro_f1(scores) == pytest.approx((4 / 5 + 2 / 3 + 0 + 0) / 4)
    assert summary(scores)["macro_f1"] == macro_f1(scores)


def test_no_examples_are_refused() -> None:
    with pytest.raises(DataError, match="0 examples"):
        summary(Scores((), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)))
