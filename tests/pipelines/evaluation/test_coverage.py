"""How often the bounds hold, over 10,000 test sets each.

The bound of `paired_bootstrap` is a quantile of random resamples. With infinitely many it is a quantile of a sum of
n + 1 draws of -1, 0 or 1, whose distribution one Fourier transform gives for thousands of test sets at once; a test
holds it to the bound that the gates use.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.evaluation.metrics import wilson
from pipelines.evaluation.statistics import paired_bootstrap

SIMULATIONS = 10_000


def lower_bounds(losses: NDArray[np.int64], wins: NDArray[np.int64], n: int, confidence: float) -> NDArray[np.float64]:
    """The lower bound, in points, of every test set of n examples. [sets] each"""
    size = 1 << (2 * (n + 1)).bit_length()  # holds sums of -(n + 1) .. n + 1
    angle = 2 * np.pi * np.arange(size // 2 + 1) / size
    pairs, back = np.unique(np.stack([losses, wins]), axis=1, return_inverse=True)
    bounds = np.empty(pairs.shape[1])
    for start in range(0, pairs.shape[1], 500):
        lost, won = pairs[:, start : start + 500, None] / (n + 1)
        lost = lost + 1 / (n + 1)  # the imagined example
        one = (1 - lost - won) + won * np.exp(-1j * angle) + lost * np.exp(1j * angle)  # one draw, transformed
        chances = np.roll(
            np.fft.irfft(one ** (n + 1), size), size // 2, axis=1
        )  # of the sums -size/2, -size/2 + 1, ...
        lowest = (np.cumsum(chances, axis=1) >= 1 - confidence).argmax(axis=1) - size // 2
        bounds[start : start + 500] = 100 * lowest / (n + 1)
    return np.minimum(bounds[back.ravel()], 100 * (wins - losses) / n)


def drawn(n: int, true: float, discordant: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The losses and the wins of test sets whose true difference is `true` points. [SIMULATIONS] each"""
    shares = [(discordant - true / 100) / 2, (discordant + true / 100) / 2, 1 - discordant]
    losses, wins, _ = np.random.default_rng(11).multinomial(n, shares, size=SIMULATIONS).T
    return losses, wins


@pytest.mark.parametrize("confidence", [0.95, 0.975])
@pytest.mark.parametrize(("losses", "wins", "n"), [(0, 0, 60), (3, 1, 60), (40, 25, 600), (90, 120, 2000)])
def test_it_is_the_bound_that_the_gates_use(losses: int, wins: int, n: int, confidence: float) -> None:
    difference = np.repeat([-100.0, 0.0, 100.0], [losses, n - losses - wins, wins])
    bounds = [paired_bootstrap(difference, confidence, 20_000, seed, largest=100) for seed in range(5)]
    (low,) = lower_bounds(np.array([losses]), np.array([wins]), n, confidence)
    (high,) = -lower_bounds(np.array([wins]), np.array([losses]), n, confidence)
    step = 100 / (n + 1)
    assert np.median([bound.low for bound in bounds]) == pytest.approx(low, abs=1.01 * step)
    assert np.median([bound.high for bound in bounds]) == pytest.approx(high, abs=1.01 * step)


# The last two: disturbed texts against the same texts as they are, where hardly any example is won.
MARGINS = [
    (60, 5, 0.05),
    (200, 5, 0.1),
    (300, 2, 0.03),
    (600, 2, 0.02),
    (600, 2, 0.1),
    (2000, 2, 0.1),
    (2000, 1, 0.05),
    (1000, 5, 0.055),
    (2400, 3, 0.04),
]


@pytest.mark.parametrize(("n", "margin", "discordant"), MARGINS)
def test_a_prompt_on_the_margin_passes_in_at_most_55_cases_of_1000(n: int, margin: float, discordant: float) -> None:
    passed = np.mean(lower_bounds(*drawn(n, -margin, discordant), n, 0.95) > -margin)
    assert 0.001 < passed <= 0.055


@pytest.mark.parametrize(("n", "true", "discordant"), [(2000, 0, 0.1), (2000, -2, 0.1), (1000, 3, 0.3), (600, 0, 0.2)])
def test_two_bounds_of_975_hold_95_percent(n: int, true: float, discordant: float) -> None:
    losses, wins = drawn(n, true, discordant)
    low, high = lower_bounds(losses, wins, n, 0.975), -lower_bounds(wins, losses, n, 0.975)
    assert 0.93 <= np.mean((low <= true) & (true <= high)) <= 0.97


@pytest.mark.parametrize(("n", "share"), [(100, 0.8), (600, 0.9), (2400, 0.88), (2400, 0.97)])
def test_wilsons_interval_of_95_holds_95_percent(n: int, share: float) -> None:
    right = np.random.default_rng(12).binomial(n, share, size=SIMULATIONS)
    bounds = {k: wilson(int(k), n, 0.95) for k in np.unique(right)}
    held = np.mean([bounds[k][0] <= share <= bounds[k][1] for k in right])
    assert 0.93 <= held <= 0.97
