"""Calibration: whether a model that says 80 % is right four times in five."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.scores import Scores

BINS = 15


def calibration_error(scores: Scores) -> float:
    """The expected calibration error over 15 bins of equal mass; a fraction, 0..1.

    The n examples are sorted by the probability p of the class answered and cut into 15 bins whose sizes differ by one
    at most (n bins where n is smaller), and

        ECE = sum over bins b of  |b| / n * | share of b answered rightly - mean p in b |

    Examples of equal p that fall into two bins count in both with the share of all of them, so that order is nothing.
    Chance alone makes it positive: a perfectly calibrated model that is right four times in five shows about 0.03 with
    2,000 examples.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2, with the bins of equal mass of
    Nixon et al. 2019, "Measuring Calibration in Deep Learning".
    """
    sizes, right, stated = _bins(scores)
    return float(np.abs(right - stated).sum() / sizes.sum())


def calibration_noise(scores: Scores, confidence: float, resamples: int, seed: int) -> float:
    """How far the error above exceeds what is true of the same bins, at most, with this confidence.

    By the triangle inequality the two differ by no more than the mean distance, over the bins, between the share
    answered rightly and its expectation. That distance is drawn `resamples` times from binomials with the shares seen;
    each bin imagines one right and one wrong answer more, so that a bin answered rightly throughout is not certain.
    """
    sizes, right, _ = _bins(scores)
    share = (right + 1) / (sizes + 2)
    drawn = np.random.default_rng(seed).binomial(sizes, share, size=(resamples, len(sizes)))  # [resamples, bins]
    return float(np.quantile(np.abs(drawn - sizes * share).sum(axis=1) / sizes.sum(), confidence))


def _bins(scores: Scores) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """How many examples each bin has, how many are answered rightly, and the sum of their probabilities. [bins] each"""
    stated, group, sizes = np.unique(scores.probability.astype(np.float64), return_inverse=True, return_counts=True)
    right = np.bincount(group, weights=scores.correct) / sizes  # of each probability that occurs
    bins = np.array_split(np.sort(group), min(BINS, len(scores)))
    return (
        np.array([len(rows) for rows in bins]),
        np.array([right[rows].sum() for rows in bins]),
        np.array([stated[rows].sum() for rows in bins]),
    )
