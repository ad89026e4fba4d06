"""Gradient checkpointing: what a layer computed on the way is not kept for its gradient, but computed again.

Between two layers the hidden states are kept, and of one layer at a time what is inside it: less memory for a forward
pass more. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. The result is the same.

A layer that runs again must find what it found the first time: the prefix and the packing that hang at its attention
only as long as a pass lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipelines.inference.base import Base
from pipelines.inference.blocks import running

HANGING = ("soft_prefix", "soft_packing")  # at an attention: see `inference/attention.py`


@contextmanager
def recomputing(base: Base, wanted: bool = True) -> Iterator[None]:
    """While this lasts, the layers of a base run again for their gradients; all but the last, which is needed at once.

    Nothing happens unless it is `wanted`.
    """
    layers = [layer for layer in base.layers if layer.block is not None][:-1] if wanted else []
    blocks = {layer.block: layer.module for layer in layers if layer.block is not None}
    with running(list(blocks), [_twice(block.forward, attention) for block, attention in blocks.items()]):
        yield


def _twice(forward: Callable[..., Any], attention: nn.Module) -> Callable[..., Any]:
    """A layer's forward, which runs again where there will be a gradient."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _hung(attention, {name: getattr(attention, name, None) for name in HANGING})

    def run(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)

    return run


@contextmanager
def _hung(attention: nn.Module, found: dict[str, Any]) -> Iterator[None]:
    """What hung at an attention once hangs there again."""
    now = {name: getattr(attention, name, None) for name in found}
    try:
        for name, value in found.items():
            setattr(attention, name, value)
        yield
    finally:
        for name, value in now.items():
            setattr(attention, name, value)
