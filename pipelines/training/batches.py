"""Which examples make which batch: seeded, the same for any number of workers, of like lengths to waste no padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL = 16  # batches' worth of shuffled examples that are sorted by length together


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of one epoch: arrays of row numbers, every row once, shuffled by (seed, epoch).

    Args:
        lengths: tokens of each row, [n].
        batch_size: rows of a batch over all workers; the last one may be smaller.
        seed: the recipe's.
        epoch: from 0.
    """
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(rows), POOL * batch_size):
        pool = rows[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[number] for number in rng.permutation(len(batches))]


def micro_batches(rows: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int) -> list[NDArray[np.int64]]:
    """A batch's rows, sorted by length and cut into parts of at most `tokens` positions each, padding counted.

    At least one part of at least one row. Together they are the batch: what the sum of their losses is differentiated
    to is the batch's own gradient.

    Args:
        rows: row numbers of the batch, [B].
        lengths: tokens of every row of the data, [n].
        tokens: the most positions of one part, however many rows; 0: no bound, one part in the given order.
    """
    if not tokens:
        return [rows]
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    parts, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - start) * lengths[rows[end]] > tokens:
            parts.append(rows[start:end])
            start = end
    return parts


def sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Batches for scoring: every row once, longest first, so that memory is asked for at the start."""
    rows = np.argsort(-lengths, kind="stable")
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


def in_rows_order(give: Callable[[NDArray[np.int64]], Tensor], lengths: NDArray[np.int64], batch_size: int) -> Tensor:
    """What `give` gives for the rows of each batch, [B, d], as one float32 tensor [n, d] on the CPU, in rows' order."""
    batches = sorted_batches(lengths, batch_size)
    parts = [give(batch).float().cpu() for batch in batches]
    given = torch.empty(len(lengths), parts[0].shape[1])
    for batch, part in zip(batches, parts, strict=True):
        given[torch.from_numpy(batch)] = part
    return given
