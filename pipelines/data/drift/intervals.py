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

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]  # [R, N]: what each of N texts weighs in each of R resamples; a row sums to 1
Distance = Callable[[Weights, Weights], NDArray[np.float64]]  # of the texts before and after -> [R]
Resample = Callable[[np.random.Generator, int, int, int], tuple[Weights, Weights]]

BLOCK = 2_000_000  # weights held in memory at once


@dataclass(frozen=True)
class Bounds:
    """A distance between two one-sided bounds, and `chance`: how far apart two samples of one source lie on average."""

    estimate: float
    low: float
    high: float
    chance: float


def bounds(
    distances: Mapping[str, Distance], before: int, after: int, *, level: float, resamples: int, seed: int
) -> dict[str, Bounds]:
    """Every distance of two samples with a lower and an upper bound, each holding with `level` on its own.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 (percentiles) and 15 (permutation
    tests).

    Args:
        distances: by name, of weighted texts; those from before come first.
        before: how many texts are from before.
        after: how many came after.
        level: of each bound, one-sided.
        resamples: how often the texts are shuffled, and how often they are drawn.
        seed: equal seeds give equal bounds.
    """
    rng = np.random.default_rng(seed)
    estimates = {name: float(distance(*_even(before, after))[0]) for name, distance in distances.items()}
    drawn, shuffled = (_many(rng, deal, distances, before, after, resamples) for deal in (_drawn, _shuffled))
    found = {}
    for name, estimate in estimates.items():
        scatter, chance = drawn[name] - drawn[name].mean(), float(shuffled[name].mean())
        by_chance = max(_quantile(shuffled[name], level), chance + _quantile(scatter, level))
        low = max(0.0, estimate - by_chance)
        found[name] = Bounds(estimate, low, min(1.0, estimate + _quantile(-scatter, level)), chance)
    return found


def difference_bounds(
    distance: Distance, before: int, after: int, *, level: float, resamples: int, seed: int
) -> Bounds:
    """The same for a difference that treats the sides differently, so that shuffling the texts says nothing of it.

    It may be negative, and is on average 0 between two samples of one source: only its scatter is taken off.
    """
    estimate = float(distance(*_even(before, after))[0])
    drawn = _many(np.random.default_rng(seed), _drawn, {"": distance}, before, after, resamples)[""]
    scatter = drawn - drawn.mean()
    return Bounds(estimate, estimate - _quantile(scatter, level), estimate + _quantile(-scatter, level), 0.0)


def _quantile(values: NDArray[np.float64], level: float) -> float:
    """Of few distinct values the one that claims less."""
    return float(np.quantile(values, level, method="higher"))


def _many(
    rng: np.random.Generator,
    deal: Resample,
    distances: Mapping[str, Distance],
    before: int,
    after: int,
    resamples: int,
) -> dict[str, NDArray[np.float64]]:
    """Every distance in all resamples, each of them dealt once for all distances, in blocks of bounded memory."""
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in distances}
    for rows in _blocks(resamples, before + after):
        weights = deal(rng, rows, before, after)
        for name, distance in distances.items():
            found[name].append(distance(*weights))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _blocks(resamples: int, texts: int) -> Iterator[int]:
    block = max(1, BLOCK // texts)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _even(before: int, after: int) -> tuple[Weights, Weights]:
    """Every text of a side weighs the same. [1, N] each"""
    first = (np.arange(before + after) < before)[None]
    return (first / before).astype(np.float32), (~first / after).astype(np.float32)


def _drawn(rng: np.random.Generator, rows: int, before: int, after: int) -> tuple[Weights, Weights]:
    """Each side drawn from itself, with replacement. [rows, N] each"""

    def counted(texts: int) -> Weights:
        drawn = rng.integers(texts, size=(rows, texts)) + texts * np.arange(rows)[:, None]
        return (np.bincount(drawn.ravel(), minlength=rows * texts).reshape(rows, texts) / texts).astype(np.float32)

    return np.pad(counted(before), ((0, 0), (0, after))), np.pad(counted(after), ((0, 0), (before, 0)))


def _shuffled(rng: np.random.Generator, rows: int, before: int, after: int) -> tuple[Weights, Weights]:
    """All texts dealt into two heaps of the sides' sizes. [rows, N] each"""
    dealt = rng.permuted(np.broadcast_to(np.arange(before + after) < before, (rows, before + after)), axis=1)
    return (dealt / before).astype(np.float32), (~dealt / after).astype(np.float32)
