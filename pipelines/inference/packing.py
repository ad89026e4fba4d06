"""Rows of different lengths one after another instead of side by side: no layer of a decoder works on padding.

Everything but attention treats each position on its own, so that the N text positions of a batch can go through it as
one row. Attention alone needs the rows apart: they lie sorted by length, and those of like lengths are put side by side
there. Zeng et al., "Boosting Distributed Training Performance of the Unpadded BERT Model", 2022, call it unpadding.

This file travels inside every packaged model and therefore imports nothing of promptmint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIKE, MORE = 1.25, 8  # how long the longest of a group may be: so many times the shortest, and so many positions more


@dataclass(frozen=True)
class Group:
    """Rows of like lengths, b of them with up to t positions, in one stretch of the packed positions."""

    shape: tuple[int, int]  # b, t
    rows: slice  # of the batch sorted by length
    stretch: slice  # of the packed positions
    places: Tensor  # [n], the numbers of these positions among b * t

    def apart(self, packed: Tensor) -> Tensor:
        """Of packed positions [1, N, ...] this group's rows [b, t, ...], zero where they are padded."""
        rows, longest = self.shape
        return put(packed[0, self.stretch], self.places, rows * longest).reshape(rows, longest, *packed.shape[2:])

    def together(self, rows: Tensor) -> Tensor:
        """The text positions [1, n, ...] of rows [b, t, ...]."""
        return take(rows.flatten(0, 1), self.places)[None]


@dataclass(frozen=True)
class Packing:
    """Where the N text positions of a batch lie in its B rows of T positions."""

    places: Tensor  # [N], the numbers of the text positions among B * T
    columns: Tensor  # [N], the place of each in its own row
    last: Tensor  # [B], the numbers of the rows' last text positions among N
    order: Tensor  # [B], the numbers of the rows, sorted by length
    groups: tuple[Group, ...]


def pack(mask: Tensor) -> Packing:
    """How the rows of a mask [B, T], padded on the right, are packed."""
    lengths, order = mask.sum(1).sort(stable=True)
    longest = mask.shape[1]
    text = mask[order].flatten().nonzero()[:, 0]  # among B * T, the rows sorted
    rows, columns = order[text // longest], text % longest
    ends = lengths.cumsum(0)
    last = put(ends - 1, order, len(order))
    return Packing(rows * longest + columns, columns, last, order, tuple(_groups(lengths.tolist(), columns)))


def _groups(lengths: list[int], columns: Tensor) -> list[Group]:
    """Rows sorted by length, cut where one is much longer than the first of its group."""
    groups, first, start, end = [], 0, 0, 0
    for number, length in enumerate(lengths):
        end += length
        following = lengths[number + 1] if number + 1 < len(lengths) else None
        if following is None or following > ALIKE * lengths[first] + MORE:
            inside = torch.repeat_interleave(
                torch.arange(number + 1 - first), torch.tensor(lengths[first : number + 1])
            ).to(columns.device)
            stretch = slice(start, end)
            places = inside * length + columns[stretch]
            groups.append(Group((number + 1 - first, length), slice(first, number + 1), stretch, places))
            first, start = number + 1, end
    return groups


def put(source: Tensor, places: Tensor, size: int) -> Tensor:
    """A tensor [size, ...] that has the rows of `source` [n, ...] at distinct places [n], and zeros elsewhere."""
    return source.new_zeros(size, *source.shape[1:]).index_copy(0, places, source)


def take(source: Tensor, places: Tensor) -> Tensor:
    """The rows [n, ...] of a tensor at distinct places [n]."""
    taken: Tensor = _Take.apply(source, places)  # type: ignore[no-untyped-call]
    return taken


class _Take(torch.autograd.Function):
    """`index_select` whose gradient is copied to its places; torch's own would add it there row by row."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(source)
        return source.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return put(gradient, places, ctx.size), None
