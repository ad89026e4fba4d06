"""Rows of different lengths one after another instead of side by side: no layer of a decoder works on padding.

Everything but attention treats each position on its own, so that the N text positions of a batch can go through it as
one row. Attention alone needs the rows apart, and gets them padded. Zeng et al., "Boosting Distributed Training
Performance of the Unpadded BERT Model", 2022, call it unpadding.

This file travels inside every packaged model and therefore imports nothing of promptmint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the N text positions of a batch lie in its B rows of T positions."""

    shape: tuple[int, int]  # B, T
    places: Tensor  # [N], the numbers of the text positions among B * T
    columns: Tensor  # [N], the place of each in its own row
    last: Tensor  # [B], the numbers of the rows' last text positions among N

    def apart(self, packed: Tensor) -> Tensor:
        """Packed positions [1, N, ...] as rows [B, T, ...], zero where they are padded."""
        return put(packed[0], self.places, self.shape[0] * self.shape[1]).unflatten(0, self.shape)

    def together(self, rows: Tensor) -> Tensor:
        """The text positions [1, N, ...] of rows [B, T, ...]."""
        return take(rows.flatten(0, 1), self.places)[None]


def pack(mask: Tensor) -> Packing:
    """How the rows of a mask [B, T], padded on the right, are packed."""
    rows, longest = mask.shape
    places = mask.flatten().nonzero()[:, 0]
    return Packing((rows, longest), places, places % longest, mask.sum(1).cumsum(0) - 1)


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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return put(gradient, *ctx.saved_tensors, ctx.size), None
