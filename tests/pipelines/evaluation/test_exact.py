"""The p-value of a claim, by what it promises: how often a false claim gets so small a one, far out in the tail too."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from pipelines.evaluation.exact import claim_p_value, restricted_loss_share
from pipelines.evaluation.statistics import paired_bootstrap


@pytest.mark.parametrize(("lost", "won", "threshold"), [(2, 1, -0.1), (0, 0, -0.2), (1, 4, 0.1), (3, 3, 0.0)])
def test_it_is_the_sum_over_everything_as_large(lost: int, won: int, threshold: float) -> None:
    n = 12
    loss = restricted_loss_share(lost, won, n, threshold)
    win = loss + threshold
    tail = sum(
        comb(n, a) * comb(n - a, b) * loss**a * win**b * (1 - loss - win) ** (n - a - b)
        for a, b in product(range(n + 1), repeat=2)
        if a + b <= n and b - a >= won - lost
    )
    assert claim_p_value(lost, won, n, threshold) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize(("lost", "won", "threshold"), [(30, 20, -0.02), (5, 0, -0.02), (0, 30, 0.02), (9, 9, 0.0)])
def test_the_truth_it_is_judged_by_is_the_likeliest(lost: int, won: int, threshold: float) -> None:
    n = 600

    def unlikely(loss: float) -> float:
        shares = np.maximum([loss, loss + threshold, 1 - 2 * loss - threshold], 1e-300)
        return -float(np.dot([lost, won, n - lost - won], np.log(shares)))

    least = max(0.0, -threshold)
    found = minimize_scalar(unlikely, bounds=(least, (1 - threshold) / 2), method="bounded", options={"xatol": 1e-9})
    assert restricted_loss_share(lost, won, n, threshold) == pytest.approx(found.x, abs=1e-5)


def test_at_5_percent_it_agrees_with_the_gate() -> None:
    for lost, won, n in ((60, 40, 600), (30, 30, 600), (40, 24, 2000), (130, 120, 2000)):
        low = paired_bootstrap(np.repeat([-100.0, 0, 100], [lost, n - lost - won, won]), 0.95, 4000, 0, largest=100).low
        assert (claim_p_value(lost, won, n, low / 100 - 0.002) < 0.05) and (
            claim_p_value(lost, won, n, low / 100 + 0.004) > 0.045
        )


# n, threshold, share of discordant examples: few and many, one-sided and even.
TRUTHS = [
    (600, -0.02, 0.02),
    (600, -0.02, 0.1),
    (2000, -0.02, 0.1),
    (600, 0.02, 0.02),
    (300, 0.0, 0.05),
    (2000, -0.01, 0.05),
]


@pytest.mark.parametrize(("n", "threshold", "discordant"), TRUTHS)
@pytest.mark.parametrize("level", [0.05, 0.0025])
def test_a_false_claim_is_proven_no_more_often_than_the_level(
    n: int, threshold: float, discordant: float, level: float
) -> None:
    shares = [(discordant - threshold) / 2, (discordant + threshold) / 2, 1 - discordant]
    drawn = np.random.default_rng(3).multinomial(n, shares, size=200_000)[:, :2]
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    rare = pairs[np.argsort(pairs[:, 1] - pairs[:, 0])]  # the larger the difference, the smaller the p-value
    order = np.argsort(pairs[:, 1] - pairs[:, 0])
    kept = np.cumsum(counts[order][::-1])[::-1] <= 3 * level * 200_000  # only these can be that small
    small = [claim_p_value(int(a), int(b), n, threshold) <= level for a, b in rare[kept]]
    rate = float(np.dot(small, counts[order][kept]) / 200_000)
    assert 0.2 * level < rate <= 1.1 * level + 2 * (level / 200_000) ** 0.5
