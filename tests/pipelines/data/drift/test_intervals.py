"""How often chance alone is called a move: on one source twice, and at the threshold itself."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.drift import measures
from pipelines.data.drift.intervals import Bounds, bounds, difference_bounds

RUNS, LEVEL = 120, 0.9
AT_MOST = 22  # of 120 at 10 %: more would come by chance less than once in 500 times


def shares(rng: np.random.Generator, texts: int, wanted: list[float]) -> list[str]:
    return [str(label) for label in rng.choice(len(wanted), size=texts, p=wanted)]


def label_bounds(before: list[str], after: list[str], seed: int = 0) -> Bounds:
    distance = {"labels": measures.label_shift([*before, *after])}
    return bounds(distance, len(before), len(after), level=LEVEL, resamples=200, seed=seed)["labels"]


@pytest.mark.parametrize("sizes", [(60, 60), (200, 40)])
@pytest.mark.parametrize("wanted", [[0.5, 0.5], [0.9, 0.1], [0.05] * 20])
def test_one_source_twice_seldom_moves(wanted: list[float], sizes: tuple[int, int]) -> None:
    moved = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        moved += label_bounds(shares(rng, sizes[0], wanted), shares(rng, sizes[1], wanted), run).low > 0
    assert moved <= AT_MOST


@pytest.mark.parametrize("kind", ["length", "vocabulary", "embedding", "unseen"])
def test_neither_do_lengths_words_and_states(kind: str) -> None:
    moved = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        how = {"level": LEVEL, "resamples": 200, "seed": run}
        if kind == "length":
            distance = measures.length_shift(rng.geometric(0.05, size=100))
        elif kind == "embedding":
            distance = measures.embedding_shift(rng.normal(size=(100, 8)).astype(np.float32))
        else:
            rare = 1 / np.arange(1, 401)  # as words are: a few frequent ones, and many that are hardly ever seen
            drawn = rng.choice(400, size=(100, 8), p=rare / rare.sum())
            words = measures.count_words([" ".join(f"w{word}" for word in text) for text in drawn], 50)
            distance = measures.vocabulary_shift(words)
            if kind == "unseen":
                moved += difference_bounds(measures.unseen_words(words), 50, 50, **how).low > 0  # type: ignore[arg-type]
                continue
        moved += bounds({kind: distance}, 50, 50, **how)[kind].low > 0  # type: ignore[arg-type]
    assert moved <= AT_MOST


@pytest.mark.parametrize(("old", "new", "sizes"), [(0.3, 0.5, (150, 150)), (0.0, 0.2, (200, 40))])
def test_a_shift_of_the_threshold_itself_is_seldom_proven_to_be_beyond_it(
    old: float, new: float, sizes: tuple[int, int]
) -> None:
    beyond = within = 0
    for run in range(RUNS):
        rng = np.random.default_rng(run)
        found = label_bounds(shares(rng, sizes[0], [1 - old, old]), shares(rng, sizes[1], [1 - new, new]), run)
        beyond += found.low > 0.2
        within += found.low <= 0.2 <= found.high
    assert beyond <= AT_MOST
    assert within >= 0.7 * RUNS


def test_a_large_shift_is_proven() -> None:
    rng = np.random.default_rng(0)
    found = label_bounds(shares(rng, 500, [0.8, 0.2]), shares(rng, 500, [0.4, 0.6]))
    assert 0.25 < found.low < found.estimate < found.high < 0.5
    assert found.estimate == pytest.approx(0.4, abs=0.06)


def test_equal_seeds_give_equal_bounds_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    sides = shares(rng, 90, [0.7, 0.3]), shares(rng, 70, [0.5, 0.5])
    assert label_bounds(*sides, seed=4) == label_bounds(*sides, seed=4) != label_bounds(*sides, seed=5)
