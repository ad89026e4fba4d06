"""A base's layers as blocks that hidden states run through, some of which a pass may leave out.

Every block of a transformer takes hidden states first and gives hidden states. So a pass can be split between two of
them on any base, and what stands around the blocks, masks and positions, stays the base's own: the pass below keeps
what the next block would have read, and the pass above begins with it, each leaving the other's blocks out.

This file travels inside every packaged model and imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import Tensor, nn

from .packing import put, take

Forward = Callable[..., Tensor]
Change = Callable[[Tensor], Tensor]


def block_of(backbone: nn.Module, attention: nn.Module) -> nn.Module | None:
    """The member of a list of modules that holds an attention; None where a base keeps its layers in another way."""
    members = (block for part in backbone.modules() if isinstance(part, nn.ModuleList) for block in part)
    return next((block for block in members if any(part is attention for part in block.modules())), None)


@contextmanager
def running(blocks: Sequence[nn.Module], forwards: Sequence[Forward]) -> Iterator[None]:
    """While this lasts, each of the blocks runs another forward than before; it may itself be inside another such."""
    before = [vars(block).pop("forward", None) for block in blocks]
    try:
        for block, forward in zip(blocks, forwards, strict=True):
            block.forward = forward
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


@contextmanager
def only_at(block: nn.Module | None, places: Tensor) -> Iterator[None]:
    """Let a block's MLP run at some of its positions [B * T] alone; elsewhere it gives zeros, for nobody to read.

    A block without one that is known to take each position alone is left as it is.
    """
    mlp: Any = getattr(block, "mlp", None)
    alone = mlp is not None and len(signature(mlp.forward).parameters) == 1
    shape: list[int] = []

    def before(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        shape[:] = inputs[0].shape[:2]
        return take(inputs[0].flatten(0, 1), places)[None]

    def after(_: nn.Module, inputs: tuple[Tensor], made: Tensor) -> Tensor:
        return put(made[0], places, shape[0] * shape[1]).reshape(*shape, -1)

    hooks = [mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)] if alone else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def left_out(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    """The forward of a block that does nothing."""
    return hidden_states


def keeping(kept: list[Tensor]) -> Forward:
    """The forward of a block that does nothing but keep what it was given."""

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        kept.append(hidden_states)
        return hidden_states

    return forward


def reading(block: nn.Module, change: Change) -> Forward:
    """The block's own forward, on what `change` makes of the hidden states that the pass gives it.

    Raises:
        ValueError: the block gives something else than hidden states alone, so that none can be left out.
    """
    own: Forward = block.forward

    def forward(hidden_states: Tensor, *others: Any, **options: Any) -> Tensor:
        given = own(change(hidden_states), *others, **options)
        if not isinstance(given, Tensor):
            raise ValueError(
                f"A layer of the type {type(block).__name__!r} gives {type(given).__name__!r} instead of hidden "
                "states, so a prompt cannot enter between two layers of this base."
            )
        return given

    return forward
