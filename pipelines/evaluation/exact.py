"""P-values of a gate's claim that hold far out in the tail, where many gates are judged together.

The bootstrap's bound is made for one gate at a level near 5 %. Judged at 0.25 %, as one of twenty, a prompt on the
margin with 12 expected losses and no wins would pass three times too often: resampling what was seen narrows with it.
Here the distribution is that of the nearest truth that would make the claim false.
"""

from __future__ import annotations

import math

import numpy as np

LEAST = 1e-12  # below it the transform's rounding is all there is


def claim_p_value(lost: int, won: int, n: int, threshold: float) -> float:
    """How likely `won - lost` would be as large as this, or larger, were the true difference only `threshold`.

    It is the exact tail of a sum of n draws of -1, 0 or 1, whose shares are the likeliest ones (given what was seen)
    among those whose difference is the threshold. Small: the claim "the difference is above the threshold" is proven.

    Source: the restricted estimate is that of Tango 1998, "Equivalence test and confidence interval for the difference
    in proportions for the paired-sample design"; the tail at it is the E p-value of Lloyd 2008, "Exact p-values for
    discrete models obtained by estimation and maximization".

    Args:
        lost: examples that only the other answered rightly.
        won: examples that only the prompt did.
        n: all examples.
        threshold: a fraction, above -1 and below 1; negative for non-inferiority.
    """
    losing = restricted_loss_share(lost, won, n, threshold)
    winning = losing + threshold
    size = 1 << (2 * n).bit_length()  # holds sums of -n .. n
    angle = 2 * np.pi * np.arange(size // 2 + 1) / size
    one = (1 - losing - winning) + winning * np.exp(-1j * angle) + losing * np.exp(1j * angle)  # one draw, transformed
    chances = np.fft.irfft(one**n, size)  # of the sums 0, 1, ... and, from the end, -1, -2, ...
    tail = float(np.roll(chances, n)[won - lost + n : 2 * n + 1].sum())
    return min(1.0, max(LEAST, tail))


def restricted_loss_share(lost: int, won: int, n: int, threshold: float) -> float:
    """The likeliest share of losses, were the share of wins larger by exactly `threshold`.

    It is the root of the likelihood's derivative, a quadratic: 2n p^2 - b p - lost t (1 - t) = 0.
    """
    b = (lost + won) * (1 - threshold) - 2 * threshold * (n - won)
    root = math.sqrt(max(0.0, b * b + 8 * n * lost * threshold * (1 - threshold)))
    return min(max((b + root) / (4 * n), 0.0, -threshold), (1 - threshold) / 2)
