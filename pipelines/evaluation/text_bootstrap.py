"""What a test set can prove about texts: examples drawn anew, a metric of the corpus computed from each draw.

Of metrics that are a mean over examples the comparison is `statistics.paired_bootstrap`. BLEU is none: a draw sums the
counts of its examples, and BLEU is taken of the sums (Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", EMNLP 2004). The same one example is imagined there too: of mean length, for the lower bound with no word
right in the prompt's text and every word in the other's, for the upper bound the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.statistics import Interval, paired_bootstrap
from pipelines.evaluation.texts import OF_EXAMPLES, TextScores, bleu_of

POINTS = 100.0
BLOCK = 4_000_000  # counts held in memory at once
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
    estimate = POINTS * (bleu_of(prompt.bleu.sum(0)) - bleu_of(other.bleu.sum(0)))
    nothing, everything = _imagined(prompt.bleu)
    lowest = _draws(np.vstack([prompt.bleu, nothing]), np.vstack([other.bleu, everything]), resamples, seed)
    highest = _draws(np.vstack([prompt.bleu, everything]), np.vstack([other.bleu, nothing]), resamples, seed)
    low, high = float(np.quantile(lowest, 1 - confidence)), float(np.quantile(highest, confidence))
    variance = len(prompt) * float(_draws(prompt.bleu, other.bleu, min(resamples, RESAMPLES), seed).var())
    return Difference(Interval(estimate, min(low, estimate), max(high, estimate)), variance)


def text_interval(scores: TextScores, metric: str, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided percentile interval of one model's score, 0..1."""
    if metric in OF_EXAMPLES:
        drawn = _sums(scores.measures[metric][:, None], RESAMPLES, SEED)
        found = [float(total[0]) / len(scores) for total in drawn]
    else:
        found = [bleu_of(total) for total in _sums(scores.bleu, RESAMPLES, SEED)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _draws(
    one: NDArray[np.int64], other: NDArray[np.int64], resamples: int, seed: int
) -> NDArray[np.float64]:  # [resamples]
    """Points of BLEU that one corpus is ahead of another, each [n, 10], the same examples drawn of both."""
    both = np.hstack([one, other])
    return np.array([POINTS * (bleu_of(drawn[:10]) - bleu_of(drawn[10:])) for drawn in _sums(both, resamples, seed)])


def _sums(values: NDArray[np.generic], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Sums [k] over n rows drawn with replacement from n rows of values [n, k], `resamples` times."""
    rng, n = np.random.default_rng(seed), len(values)
    block = max(1, BLOCK // n)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))
        yield from drawn @ values.astype(np.float64)


def _imagined(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An example's ten counts where nothing is right, and where everything is; as long as references are on average."""
    length = max(1, round(float(counts[:, 9].mean())))
    grams = [max(length - order, 0) for order in range(4)]
    return np.array([0, 0, 0, 0, *grams, length, length]), np.array([*grams, *grams, length, length])
