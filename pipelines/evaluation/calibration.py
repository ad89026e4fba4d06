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

    Chance alone makes it positive: a perfectly calibrated model that is right four times in five shows about 0.03 with
    2,000 examples.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2, with the bins of equal mass of
    Nixon et al. 2019, "Measuring Calibration in Deep Learning".
    """
    bins = _bins(scores)
    gaps = [abs(scores.correct[rows].mean() - scores.probability[rows].mean(dtype=np.float64)) for rows in bins]
    return float(np.average(gaps, weights=[len(rows) for rows in bins]))


def calibration_noise(scores: Scores, confidence: float, resamples: int, seed: int) -> float:
    """How far the error above exceeds what is true of the same bins, at most, with this confidence.

    By the triangle inequality the two differ by no more than the mean distance, over the bins, between the share
    answered rightly and its expectation. That distance is drawn `resamples` times from binomials with the shares seen;
    each bin imagines one right and one wrong answer more, so that a bin answered rightly throughout is not certain.
    """
    bins = _bins(scores)
    sizes = np.array([len(rows) for rows in bins])  # [bins]
    right = np.array([scores.correct[rows].sum() for rows in bins])  # [bins]
    share = (right + 1) / (sizes + 2)
    drawn = np.random.default_rng(seed).binomial(sizes, share, size=(resamples, len(bins))) / sizes
    return float(np.quantile(np.average(np.abs(drawn - share), axis=1, weights=sizes), confidence))


def _bins(scores: Scores) -> list[NDArray[np.intp]]:
    """The rows of each bin; among equal probabilities in the order of their ids."""
    return np.array_split(np.argsort(scores.probability, kind="stable"), min(BINS, len(scores)))
