"""What a test set can prove about texts: examples drawn anew, a metric of the corpus computed from each draw.

Of metrics that are a mean over examples the comparison is `statistics.paired_bootstrap`. BLEU is none: a draw sums the
counts of its examples, and BLEU is taken of the sums (Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", EMNLP 2004). The same one example is imagined there too: of mean length, for the lower bound with no word
right in the prompt's text and every word in the other's, for the upper bound the other way round. Both bounds are taken
of the same draws: a draw says how often it had the imagined example, and each bound adds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.statistics import Interval, paired_bootstrap
from pipelines.evaluation.texts import OF_EXAMPLES, TextScores, bleu_of, bleu_of_each

POINTS = 100.0
BLOCK = 500_000  # counts held in memory at once: 4 MB
RESAMPLES, SEED = 1000, 0  # of the interval of one model


@dataclass(frozen=True)
class Difference:
    """One model minus another in points of a metric, and the variance of what one example adds to it."""

    interval: Interval
    variance: float


def text_difference(
    prompt: TextScores, other: TextScores, metric: str, confidence: float, resamples: int, seed: int
) -> Difference:
    """How far the prompt is ahead in points of a metric; both scores in one order, as `paired_texts` gives them.

    `confidence`, `resamples` and `seed` are those of `paired_bootstrap`: each bound holds on its own.
    """
    if metric in OF_EXAMPLES:
        each = POINTS * (prompt.measures[metric] - other.measures[metric])
        return Difference(paired_bootstrap(each, confidence, resamples, seed, largest=POINTS), float(each.var()))
    both = np.hstack([prompt.bleu, other.bleu])  # [n, 20]
    estimate = POINTS * (bleu_of(prompt.bleu.sum(0)) - bleu_of(other.bleu.sum(0)))
    nothing, everything = _imagined(prompt.bleu)
    pool = np.pad(both, ((0, 1), (0, 1)))  # [n + 1, 21] the imagined example last, and a column that counts it
    pool[-1, -1] = 1
    drawn = _sums(pool, resamples, seed)
    sums, imagined = drawn[:, :-1], drawn[:, -1:]
    lowest = _ahead(sums + imagined * np.append(nothing, everything))
    highest = _ahead(sums + imagined * np.append(everything, nothing))
    low, high = float(np.quantile(lowest, 1 - confidence)), float(np.quantile(highest, confidence))
    variance = len(prompt) * float(_ahead(sums).var())  # of the draws without the imagined example
    return Difference(Interval(estimate, min(low, estimate), max(high, estimate)), variance)


def text_interval(scores: TextScores, metric: str, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided percentile interval of one model's score, 0..1."""
    if metric in OF_EXAMPLES:
        found = _sums(scores.measures[metric][:, None], RESAMPLES, SEED)[:, 0] / len(scores)
    else:
        found = bleu_of_each(_sums(scores.bleu, RESAMPLES, SEED))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _ahead(sums: NDArray[Any]) -> NDArray[np.float64]:  # [m]
    """Points of BLEU that one corpus is ahead of another, of the ten counts of both, [m, 20]."""
    return POINTS * (bleu_of_each(sums[:, :10]) - bleu_of_each(sums[:, 10:]))


def _sums(values: NDArray[Any], resamples: int, seed: int) -> NDArray[np.float64]:  # [resamples, k]
    """Sums over n rows drawn with replacement from n rows of values [n, k]; of whole numbers they are exact.

    How often each row was drawn, times the rows, is one product of matrices for many draws. A block of them is held at
    a time.
    """
    rng, n = np.random.default_rng(seed), len(values)
    rows, sums = values.astype(np.float64), np.empty((resamples, values.shape[1]))
    times = np.empty((min(resamples, max(1, BLOCK // n)), n))  # [block, n]
    for start in range(0, resamples, len(times)):
        block = times[: resamples - start]
        for draw in block:
            draw[:] = np.bincount(rng.integers(n, size=n), minlength=n)
        sums[start : start + len(block)] = block @ rows
    return sums


def _imagined(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An example's ten counts where nothing is right, and where everything is; as long as references are on average."""
    length = max(1, round(float(counts[:, 9].mean())))
    grams = [max(length - order, 0) for order in range(4)]
    return np.array([0, 0, 0, 0, *grams, length, length]), np.array([*grams, *grams, length, length])
