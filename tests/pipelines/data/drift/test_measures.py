"""Every distance against what it is by definition, computed the slow way."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from pipelines.data.drift import measures
from pipelines.data.drift.intervals import Distance, _even


def apart(distance: Distance, before: int, after: int) -> float:
    return float(distance(*_even(before, after))[0])


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("bcd"), min_size=1))
def test_labels_by_total_variation(old: list[str], new: list[str]) -> None:
    slow = sum(abs(old.count(name) / len(old) - new.count(name) / len(new)) for name in "abcd") / 2
    assert apart(measures.label_shift([*old, *new]), len(old), len(new)) == pytest.approx(slow, abs=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(3, 12), min_size=1))
def test_lengths_as_kolmogorov_and_smirnov_do(old: list[int], new: list[int]) -> None:
    distance = measures.length_shift(np.array([*old, *new]))
    assert apart(distance, len(old), len(new)) == pytest.approx(ks_2samp(old, new).statistic, abs=1e-5)


def test_words_by_jensen_and_shannon() -> None:
    old, new = ["The cat sat", "the dog"], ["A cat, a CAT!", "birds sat"]
    words = measures.count_words([*old, *new], 2)
    first, last = (Counter(" ".join(side).lower().replace(",", "").replace("!", "").split()) for side in (old, new))
    names = sorted({*first, *last})
    slow = jensenshannon([first[name] for name in names], [last[name] for name in names], base=2) ** 2
    assert apart(measures.vocabulary_shift(words), 2, 2) == pytest.approx(slow, abs=1e-6)
    # Of six words after, "a" twice and "birds" are new; before, "cat", "sat" and "dog" stand in one text alone.
    assert words.unseen.tolist() == [2, 1, 2, 1]
    assert apart(measures.unseen_words(words), 2, 2) == pytest.approx(3 / 6 - 3 / 5)


def test_words_beyond_the_most_frequent_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "WORDS", 1)
    words = measures.count_words(["a a b", "a c d"], 1)
    assert words.names == ("a", "")
    assert words.counts.toarray().tolist() == [[2, 1], [1, 2]]


def test_characters_are_words_where_words_are_not_spaced() -> None:
    assert measures.words_of("今日は Tokyo-2020") == ["今", "日", "は", "tokyo", "2020"]


def test_states_by_maximum_mean_discrepancy() -> None:
    rng = np.random.default_rng(0)
    states = np.concatenate([rng.normal(size=(6, 3)), rng.normal(1, 2, size=(4, 3))]).astype(np.float32)
    scaled = (states - states.mean(0)) / states.std(0)
    pairs = {(i, j): float(((scaled[i] - scaled[j]) ** 2).sum()) for i in range(10) for j in range(10)}
    middle = float(np.median([value for (i, j), value in pairs.items() if i < j]))
    mean = {
        (a, b): float(np.mean([math.exp(-pairs[i, j] / (2 * middle)) for i in side_a for j in side_b]))
        for a, side_a in enumerate((range(6), range(6, 10)))
        for b, side_b in enumerate((range(6), range(6, 10)))
    }
    slow = math.sqrt((mean[0, 0] + mean[1, 1] - 2 * mean[0, 1]) / 2)
    assert apart(measures.embedding_shift(states), 6, 4) == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_no_distance_exceeds_the_share_that_was_replaced(share: float) -> None:
    old = ["plain words here"] * 20
    new = ["utterly different and much longer strings"] * int(20 * share) + old[int(20 * share) :]
    words = measures.count_words([*old, *new], 20)
    lengths = np.array([len(text) for text in (*old, *new)])
    states = np.array([[float(text == old[0])] for text in (*old, *new)], np.float32)
    for distance in (
        measures.label_shift([*old, *new]),
        measures.length_shift(lengths),
        measures.embedding_shift(states),
    ):
        assert apart(distance, 20, 20) <= share + 1e-6
    replaced = 6 * share / (6 * share + 3 * (1 - share))
    assert apart(measures.vocabulary_shift(words), 20, 20) <= replaced + 1e-6
    assert apart(measures.unseen_words(words), 20, 20) == pytest.approx(replaced)
