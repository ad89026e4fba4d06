"""How far apart two samples lie, with bounds: what chance alone does is taken off before anything is claimed.

Two samples of one source never look alike: with 77 labels and 500 texts of either side their labels' shares differ by
0.22 in all. So a plain estimate says too much, and a bootstrap of it even more, since drawing again adds its own
chance. Two things are therefore simulated. All texts are *shuffled* and dealt into two heaps of the same sizes: how far
apart these lie is chance alone. And each side is *drawn* again from itself, with replacement: how widely the estimate
scatters about its own mean. The lower bound takes off the larger of what shuffling shows at the level that was asked
for, and of its mean with the scatter. Where both sides have one source it exceeds 0 no more often than 1 - level, by
the exactness of the permutation test; where they really differ by the threshold, the scatter keeps it below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]  # [R, N]: what each of N texts weighs in each of R resamples; a row sums to 1
Distance = Callable[[Weights, Weights], NDArray[np.float64]]  # of the texts before and after -> [R]

BLOCK = 2_000_000  # weights held in memory at once


@dataclass(frozen=True)
class Bounds:
    """A distance between two one-sided bounds, and `chance`: how far apart two samples of one source lie on average."""

    estimate: float
    low: float
    high: float
    chance: float


def bounds(
    distance: Distance,
    before: int,
    after: int,
    *,
    level: float,
    resamples: int,
    seed: int,
    exchangeable: bool = True,
) -> Bounds:
    """The distance of two samples with a lower and an upper bound, each holding with `level` on its own.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 (percentiles) and 15 (permutation
    tests).

    Args:
        distance: of weighted texts; those from before come first.
        before: how many texts are from before.
        after: how many came after.
        level: of each bound, one-sided.
        resamples: how often the texts are shuffled, and how often they are drawn.
        seed: equal seeds give equal bounds.
        exchangeable: whether texts of one source may be shuffled: not where the measure treats the sides differently.
            Such a measure may be negative, and is on average 0 between two samples of one source.
    """
    rng = np.random.default_rng(seed)
    estimate = float(distance(*_even(before, after))[0])
    drawn = np.concatenate([distance(*_drawn(rng, rows, before, after)) for rows in _blocks(resamples, before + after)])
    scatter = float(np.quantile(drawn, level, method="higher") - drawn.mean())
    high = min(1.0, estimate + float(drawn.mean() - np.quantile(drawn, 1 - level, method="lower")))
    if not exchangeable:
        return Bounds(estimate, estimate - scatter, high, 0.0)
    shuffled = np.concatenate(
        [distance(*_shuffled(rng, rows, before, after)) for rows in _blocks(resamples, before + after)]
    )
    chance = float(shuffled.mean())
    by_chance = max(float(np.quantile(shuffled, level, method="higher")), chance + scatter)
    return Bounds(estimate, max(0.0, estimate - by_chance), high, chance)


def _blocks(resamples: int, texts: int) -> Iterator[int]:
    """The resamples in blocks of bounded memory."""
    block = max(1, BLOCK // texts)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _even(before: int, after: int) -> tuple[Weights, Weights]:
    """Every text of a side weighs the same. [1, N] each"""
    first = np.zeros((1, before + after), np.float32)
    first[:, :before] = 1 / before
    last = np.zeros_like(first)
    last[:, before:] = 1 / after
    return first, last


def _drawn(rng: np.random.Generator, rows: int, before: int, after: int) -> tuple[Weights, Weights]:
    """Each side drawn from itself, with replacement. [rows, N] each"""
    first, last = (np.zeros((rows, before + after), np.float32) for _ in range(2))
    first[:, :before] = rng.multinomial(before, np.full(before, 1 / before), size=rows) / before
    last[:, before:] = rng.multinomial(after, np.full(after, 1 / after), size=rows) / after
    return first, last


def _shuffled(rng: np.random.Generator, rows: int, before: int, after: int) -> tuple[Weights, Weights]:
    """All texts dealt into two heaps of the sides' sizes. [rows, N] each"""
    dealt = rng.permuted(np.broadcast_to(np.arange(before + after) < before, (rows, before + after)), axis=1)
    return (dealt / before).astype(np.float32), (~dealt / after).astype(np.float32)
