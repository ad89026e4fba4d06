"""Every row once an epoch, in an order that only the seed and the epoch decide."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.batches import epoch_batches, micro_batches, sorted_batches

Lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(lambda lengths: np.array(lengths, np.int64))
Size = st.integers(1, 20)
Seed = st.integers(0, 2**32)


@given(Lengths, Size, Seed, st.integers(0, 5))
def test_every_row_comes_once_in_an_epoch(lengths: np.ndarray, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)  # what the schedule of rates counts on
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)


@given(Lengths, Size, Seed, st.integers(0, 5), st.integers(1, 5))
def test_workers_share_each_batch_without_overlap(
    lengths: np.ndarray, size: int, seed: int, epoch: int, workers: int
) -> None:
    alone = epoch_batches(lengths, size, seed, epoch)
    each = [epoch_batches(lengths, size, seed, epoch) for _ in range(workers)]  # every worker works it out for itself
    for step, batch in enumerate(alone):
        shares = [each[rank][step][rank::workers] for rank in range(workers)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())


def test_seeds_and_epochs_are_different_orders() -> None:
    lengths = np.ones(100, np.int64)
    orders = [np.concatenate(epoch_batches(lengths, 8, seed, epoch)).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_rows_of_a_batch_are_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    wasted = [int((lengths[batch].max() - lengths[batch]).sum()) for batch in epoch_batches(lengths, 10, 0, 0)]
    shuffled = np.random.default_rng(1).permutation(1000).reshape(100, 10)
    naive = [int((lengths[batch].max() - lengths[batch]).sum()) for batch in shuffled]
    assert sum(wasted) < 0.25 * sum(naive)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 10, 0, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3  # and yet short ones do not come first


@given(Lengths, Size)
def test_scoring_takes_every_row_once_longest_first(lengths: np.ndarray, size: int) -> None:
    order = np.concatenate(sorted_batches(lengths, size))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()


@given(Lengths, Size, Seed, st.integers(1, 300))
def test_micro_batches_are_the_batch_in_parts_that_fit(lengths: np.ndarray, size: int, seed: int, tokens: int) -> None:
    for batch in epoch_batches(lengths, size, seed, 0):
        parts = micro_batches(batch, lengths, tokens)
        assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())
        for part in parts:
            assert len(part) == 1 or len(part) * lengths[part].max() <= tokens
        for part, following in itertools.pairwise(parts):  # and none could have taken one row more
            assert (len(part) + 1) * lengths[following[0]] > tokens


def test_without_a_bound_a_batch_is_one_part_in_its_own_order() -> None:
    batch = np.array([3, 0, 2])
    assert [part.tolist() for part in micro_batches(batch, np.array([9, 1, 5, 7]), 0)] == [[3, 0, 2]]
