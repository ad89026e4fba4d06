"""Which epoch counts."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from pipelines.training.selection import Selection, better_beyond_chance


def right(count: int, of: int = 600) -> Tensor:
    """The first `count` examples answered right."""
    return torch.arange(of) < count


def kept(*epochs: Tensor) -> int:
    """The epoch that is kept in the end, from 1."""
    selection = Selection()
    return [number for number, correct in enumerate(epochs, 1) if selection.takes(correct)][-1]


def test_the_last_epoch_counts_where_nothing_is_proven() -> None:
    assert kept(right(500), right(520), right(530)) == 3
    assert kept(right(530), right(530)) == 2
    assert kept(right(530), right(526)) == 2, "four examples to none are chance in one of sixteen"


def test_an_earlier_epoch_counts_where_the_last_is_proven_worse() -> None:
    assert kept(right(500), right(530), right(525)) == 2, "five to none are chance in one of thirty-two"
    assert kept(right(530), right(528), right(500)) == 2, "the last of those that were not"


def test_a_slow_decline_is_measured_from_the_best() -> None:
    assert kept(*(right(540 - 3 * epoch) for epoch in range(20))) == 2


def test_disagreements_both_ways_make_it_harder_to_prove() -> None:
    one, other = right(530), torch.roll(right(524), 40)
    assert int((one & ~other).sum()) - int((other & ~one).sum()) == 6
    assert not better_beyond_chance(one, other)
    assert better_beyond_chance(right(530), right(524))


@pytest.mark.parametrize(("ahead", "behind"), [(0, 0), (5, 0), (12, 5), (13, 5), (61, 40), (62, 40), (900, 830)])
def test_chance_is_mcnemars(ahead: int, behind: int) -> None:
    one = torch.tensor([True] * ahead + [False] * behind + [True] * 7)
    other = torch.tensor([False] * ahead + [True] * behind + [True] * 7)
    proven = ahead + behind > 0 and binomtest(ahead, ahead + behind, alternative="greater").pvalue <= 0.05
    assert better_beyond_chance(one, other) == proven
