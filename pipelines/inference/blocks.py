"""A base's layers as blocks that hidden states run through, some of which a pass may leave out.

Every block of a transformer takes hidden states first and gives hidden states. So a pass can be split between two of
them on any base, and what stands around the blocks, masks and positions, stays the base's own: the pass below keeps
what the next block would have read, and the pass above begins with it, each leaving the other's blocks out.

Of a T5 the first block also makes a bias of distances, which it hands on to the others (Raffel et al., "Exploring the
Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020, section 2.1). Nothing but the number of
positions decides it, so a block makes it also where it is left out.

This file travels inside every packaged model and imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import Tensor, nn

from .packing import put, take

Forward = Callable[..., Any]  # gives hidden states, or a tuple with them first
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


def left_out(block: nn.Module) -> Forward:
    """The forward of a block that changes no hidden states; it hands on the bias of a T5, made for all of them."""
    source: Any = _source_of_bias(block)
    if source is None:
        return lambda hidden_states, *_, **__: hidden_states
    taken = signature(type(block).forward)

    def forward(hidden_states: Tensor, *others: Any, **options: Any) -> tuple[Tensor, Tensor, None]:
        bias = taken.bind(block, hidden_states, *others, **options).arguments.get("position_bias")
        if bias is None:  # nothing was handed on to it: it is the first
            bias = source.compute_bias(hidden_states.shape[1], hidden_states.shape[1])
        return hidden_states, bias, None

    return forward


def keeping(block: nn.Module, kept: list[Tensor]) -> Forward:
    """The forward of a block that is left out and keeps what it was given."""
    nothing = left_out(block)

    def forward(hidden_states: Tensor, *others: Any, **options: Any) -> Any:
        kept.append(hidden_states)
        return nothing(hidden_states, *others, **options)

    return forward


def reading(block: nn.Module, change: Change) -> Forward:
    """The block's own forward, on what `change` makes of the hidden states that the pass gives it.

    Raises:
        ValueError: the block gives more than hidden states and a bias that can be made without it, so that it cannot
            be left out.
    """
    own, hands_on = block.forward, _source_of_bias(block) is not None

    def forward(hidden_states: Tensor, *others: Any, **options: Any) -> Any:
        given = own(change(hidden_states), *others, **options)
        if not isinstance(given[0] if hands_on else given, Tensor):
            raise ValueError(
                f"A layer of the type {type(block).__name__!r} gives {type(given).__name__!r} instead of hidden "
                "states, so a prompt cannot enter between two layers of this base."
            )
        return given

    return forward


def _source_of_bias(block: nn.Module) -> nn.Module | None:
    """The attention that can make the bias of distances which a block takes and hands on; None of other blocks."""
    if "position_bias" not in signature(type(block).forward).parameters:
        return None
    return next((part for part in block.modules() if hasattr(part, "compute_bias")), None)
