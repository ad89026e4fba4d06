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

    best: Tensor | None = None  # [n]: how good each validation example was in the best epoch so far

    def takes(self, good: Tensor) -> bool:
        """Whether an epoch takes the place of the one before, by how good its validation examples were, [n].

        That is whether each was answered right, bool; or minus the loss of each, where the answer is a text.
        """
        if self.best is None or good.sum() >= self.best.sum():
            self.best = good
        return not better_beyond_chance(self.best, good)


def stalled(losses: Sequence[float], patience: int | None) -> bool:
    """Whether none of the last `patience` epochs' validation losses was below the lowest before; never without one."""
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def better_beyond_chance(one: Tensor, other: Tensor) -> bool:
    """Whether `one` did better on the same examples than `other`, both [n].

    The sign test, one-sided: where they differ, each is the better one with probability one half if they are equally
    good. Of right and wrong answers it is McNemar's exact test (McNemar, "Note on the sampling error of the difference
    between correlated proportions", 1947).
    """
    ahead, behind = int((one > other).sum()), int((other > one).sum())
    return binomial_at_most(behind, ahead + behind, 0.5) <= CHANCE
