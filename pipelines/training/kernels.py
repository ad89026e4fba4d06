"""The three parts of a Llama-like layer with their gradients written out: nothing is kept or computed for weights.

A frozen weight asks for no gradient, but autograd runs the many small operations around the matrices one by one, there
and back, and copies a shared prompt's keys and values for every row. Here each part is one operation: its backward
knows what it needs, adds products up in place, and multiplies the prompt's keys and values by all rows at once.

Shapes: n packed positions (`inference/packing.py`), m of them asking, d hidden width, H heads, H_kv key/value heads of
width d_h, K prompts of P tokens; a group has b rows of up to t positions. Weights are float32 or float64, on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Turn = tuple[Tensor, Tensor]  # cosines and sines of each position, [n, d_h / 2]


@dataclass(frozen=True)
class Stretch:
    """Where a group's positions lie: side by side among the packed ones, padded among b * t."""

    packed: slice
    filled: Tensor  # [b * t], a packed position for each place, any where there is padding
    places: Tensor  # the place of each packed position


@dataclass(frozen=True)
class Group:
    """Rows of like lengths that follow the same prompt."""

    rows: int
    prompt: int  # which of K
    asking: Stretch
    asked: Stretch
    mask: Tensor  # added to the scores, [..., t asking, t asked]


@dataclass(frozen=True)
class Heads:
    """How the heads of a layer share a position's numbers."""

    kv: int
    copies: int  # H / H_kv
    width: int
    scaling: float

    def apart(self, packed: Tensor, stretch: Stretch, rows: int, copies: int) -> Tensor:
        """A group's heads [H_kv * b, copies * t, d_h] of packed positions [n, H_kv * copies * d_h]."""
        found = packed[stretch.packed].index_select(0, stretch.filled)
        found = found.view(rows, -1, self.kv, copies, self.width).permute(2, 0, 3, 1, 4)
        return found.reshape(self.kv * rows, -1, self.width)

    def together(self, heads: Tensor, stretch: Stretch, rows: int, copies: int) -> Tensor:
        """The packed positions again."""
        found = heads.view(self.kv, rows, copies, -1, self.width).permute(1, 3, 0, 2, 4)
        return found.reshape(-1, self.kv * copies * self.width).index_select(0, stretch.places)


def projected(states: Tensor, turn: Turn, norm: Any, turned: Sequence[nn.Linear], kept: Sequence[nn.Linear]) -> Any:
    """Projections [n, ...] of normed states [n, d], those of `turned` by their positions, then those of `kept`."""
    return _Projected.apply(states, turn, norm, turned, kept)  # type: ignore[no-untyped-call]


def attended(
    queries: Tensor, keys: Tensor, values: Tensor, before: tuple[Tensor, Tensor] | None, groups: Sequence[Group],
    heads: Heads,
) -> Tensor:  # fmt: skip
    """What queries [m, H * d_h] take from a prompt's keys and values and from those of their row, [m, H * d_h].

    `before` are keys and values [K, H_kv, P, d_h], which every position of a row sees.
    """
    first, second = before or (None, None)
    taken: Tensor = _Attended.apply(queries, keys, values, first, second, groups, heads)  # type: ignore[no-untyped-call]
    return taken


def gated(states: Tensor, norm: Any, mlp: Any) -> Tensor:
    """States [n, d] and what a gated MLP adds to them after their norm. Shazeer, "GLU Variants", 2020, equation 6."""
    added: Tensor = _Gated.apply(states, norm, mlp)  # type: ignore[no-untyped-call]
    return added


class _Projected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, turn: Turn, norm: Any, turned: Any, kept: Any) -> tuple[Tensor, ...]:
        normed, scale = _normed(states, norm)
        ctx.save_for_backward(states, scale)
        ctx.parts = turn, norm, turned, kept
        made = [nn.functional.linear(normed, each.weight, each.bias) for each in (*turned, *kept)]
        return tuple(_turned(each, *turn) for each in made[: len(turned)]) + tuple(made[len(turned) :])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (states, scale), (turn, norm, turned, kept) = ctx.saved_tensors, ctx.parts
        cosines, sines = turn
        back = [_turned(each, cosines, -sines) for each in gradients[: len(turned)]] + list(gradients[len(turned) :])
        gradient = back[0] @ turned[0].weight if turned else back[0] @ kept[0].weight
        for each, part in list(zip(back, (*turned, *kept), strict=True))[1:]:
            gradient.addmm_(each, part.weight)
        return _through_norm(gradient, states, scale, norm), None, None, None, None


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, first: Any, second: Any, groups: Any, heads: Heads
    ) -> Tensor:
        made, saved = torch.empty_like(queries), []
        for group in groups:
            rows = group.rows
            query = heads.apart(queries, group.asking, rows, heads.copies).mul_(heads.scaling)
            key, value = (heads.apart(part, group.asked, rows, 1) for part in (keys, values))
            scores = torch.bmm(query, key.transpose(1, 2))
            scores.view(heads.kv, rows, heads.copies, -1, key.shape[1]).add_(group.mask)
            if first is not None:
                scores = torch.cat([_over_rows(query, first[group.prompt].transpose(1, 2)), scores], dim=2)
            weights = scores.softmax(2)
            own = weights.shape[2] - key.shape[1]
            taken = torch.bmm(weights[:, :, own:], value)
            if first is not None:
                taken += _over_rows(weights[:, :, :own], second[group.prompt])
            made[group.asking.packed] = heads.together(taken, group.asking, rows, heads.copies)
            saved += [query, key, value, weights]
        ctx.save_for_backward(first, second, *saved)
        ctx.parts = groups, heads, len(queries), len(keys)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (first, second, *saved), (groups, heads, asking, asked) = ctx.saved_tensors, ctx.parts
        text = any(ctx.needs_input_grad[:3])  # else nothing below these positions depends on a prompt
        width = heads.kv * heads.width
        to_queries: Any = gradient.new_empty(asking, width * heads.copies) if text else None
        to_keys: Any
        to_values: Any
        to_keys, to_values = (gradient.new_empty(asked, width) if text else None for _ in range(2))
        to_first: Any
        to_second: Any
        to_first, to_second = (None if each is None else torch.zeros_like(each) for each in (first, second))
        for number, group in enumerate(groups):
            query, key, value, weights = saved[4 * number : 4 * number + 4]
            rows, own = group.rows, weights.shape[2] - key.shape[1]
            padded = gradient.new_zeros(len(group.asking.filled), gradient.shape[1])
            padded.index_copy_(0, group.asking.places, gradient[group.asking.packed])
            taken = padded.view(rows, -1, heads.kv, heads.copies, heads.width).permute(2, 0, 3, 1, 4)
            taken = taken.reshape(query.shape)
            scores = torch.bmm(taken, value.transpose(1, 2))
            if first is not None:
                scores = torch.cat([_over_rows(taken, second[group.prompt].transpose(1, 2)), scores], dim=2)
            scores = torch._softmax_backward_data(scores, weights, 2, weights.dtype)
            if to_first is not None:
                to_first[group.prompt] += _of_rows(scores[:, :, :own], query, heads.kv)
                to_second[group.prompt] += _of_rows(weights[:, :, :own], taken, heads.kv)
            if not text:
                continue
            asks = torch.bmm(scores[:, :, own:], key)
            if first is not None:
                asks += _over_rows(scores[:, :, :own], first[group.prompt])
            to_queries[group.asking.packed] = heads.together(asks.mul_(heads.scaling), group.asking, rows, heads.copies)
            for target, given, by in ((to_keys, query, scores), (to_values, taken, weights)):
                summed = torch.bmm(by[:, :, own:].transpose(1, 2), given)
                target[group.asked.packed] = heads.together(summed, group.asked, rows, 1)
        return to_queries, to_keys, to_values, to_first, to_second, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, norm: Any, mlp: Any) -> Tensor:
        normed, scale = _normed(states, norm)
        gate, up = normed @ mlp.gate_proj.weight.T, normed @ mlp.up_proj.weight.T
        ctx.save_for_backward(states, scale, gate, up)
        ctx.parts = norm, mlp
        return torch.addmm(states, nn.functional.silu(gate).mul_(up), mlp.down_proj.weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (states, scale, gate, up), (norm, mlp) = ctx.saved_tensors, ctx.parts
        inner = gradient @ mlp.down_proj.weight
        back = (nn.functional.silu(gate).mul_(inner)) @ mlp.up_proj.weight
        back.addmm_(torch.ops.aten.silu_backward(inner.mul_(up), gate), mlp.gate_proj.weight)
        return _through_norm(back, states, scale, norm).add_(gradient), None, None


def _normed(states: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """States [n, d] divided by their root mean square and weighted, and 1 over that, [n, 1]."""
    squares = torch.linalg.vector_norm(states, dim=1, keepdim=True).square_().div_(states.shape[1])
    scale = squares.add_(norm.variance_epsilon).rsqrt_()
    return (states * scale).mul_(norm.weight), scale


def _through_norm(gradient: Tensor, states: Tensor, scale: Tensor, norm: Any) -> Tensor:
    """The gradient of the states from that of the normed states, which is overwritten."""
    gradient.mul_(norm.weight)
    normed = states * scale
    along = (gradient * normed).mean(1, keepdim=True)
    return gradient.sub_(normed.mul_(along)).mul_(scale)


def _turned(parts: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Heads [n, h * d_h] turned by their positions. Su et al., "RoFormer", 2021, section 3.4.2."""
    width = cosines.shape[1]
    halves = parts.view(len(parts), parts.shape[1] // (2 * width), 2, width)
    made = halves * cosines[:, None, None]
    made[:, :, 0].addcmul_(halves[:, :, 1], sines[:, None], value=-1)
    made[:, :, 1].addcmul_(halves[:, :, 0], sines[:, None])
    return made.view_as(parts)


def _over_rows(rows: Tensor, shared: Tensor) -> Tensor:
    """[H_kv * b, r, x] times a prompt's [H_kv, x, y], all rows of a head at once: [H_kv * b, r, y]."""
    kv = len(shared)
    return torch.bmm(rows.reshape(kv, -1, rows.shape[2]), shared).view(len(rows), -1, shared.shape[2])


def _of_rows(left: Tensor, right: Tensor, kv: int) -> Tensor:
    """The sum over rows of [H_kv * b, r, x] transposed times [H_kv * b, r, y]: [H_kv, x, y]."""
    left, right = (part.reshape(kv, -1, part.shape[2]) for part in (left, right))
    return torch.bmm(left.transpose(1, 2), right)
