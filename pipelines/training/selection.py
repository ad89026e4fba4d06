"""When a training ends, and which of its epochs counts: the last one, unless an earlier one was better beyond chance.

Rates fall to zero at the end, so the last epoch is the one to expect most of; the best of several on some hundred
validation examples is often only the luckiest. See docs/decisions/0016-the-last-epoch-unless-proven-worse.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipelines.evaluation.statistics import binomial_at_most

CHANCE = 0.05


@dataclass
class Selection:
    """What there is to choose by while epochs go by."""

    best: Tensor | None = None  # [n] bool: what the most accurate epoch so far got right

    def takes(self, correct: Tensor) -> bool:
        """Whether an epoch that got these validation examples right, [n] bool, takes the place of the one before."""
        if self.best is None or correct.sum() >= self.best.sum():
            self.best = correct
        return not better_beyond_chance(self.best, correct)


def stalled(losses: Sequence[float], patience: int | None) -> bool:
    """Whether none of the last `patience` epochs' validation losses was below the lowest before; never without one."""
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def better_beyond_chance(one: Tensor, other: Tensor) -> bool:
    """Whether `one` got more of the same examples right than `other`, both [n] bool.

    McNemar's exact test, one-sided: where they disagree, each is right with probability one half if they are equally
    good (McNemar, "Note on the sampling error of the difference between correlated proportions", 1947).
    """
    ahead, behind = int((one & ~other).sum()), int((other & ~one).sum())
    return binomial_at_most(behind, ahead + behind, 0.5) <= CHANCE
