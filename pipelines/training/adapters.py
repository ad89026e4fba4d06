"""Bottleneck adapters: a small network behind each layer's feed-forward part, the base frozen around it.

An adapter of width m reads the output h [B, T, d] of a layer's last linear map, before the layer adds what it read:

    h + W_up GELU(W_down h + b_down) + b_up,    W_down [m, d], W_up [d, m]

It stands where Houlsby et al. put theirs, and in that one place of the two that Pfeiffer et al. found to do: behind the
feed-forward part. W_up and b_up start at zero, so that the base starts as itself. Trains 2 * d * m + m + d numbers in
each layer. The papers leave the nonlinearity open; GELU has no unit that is silent for every text, as ReLU may have.

Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1; Pfeiffer et al.,
"AdapterFusion: Non-Destructive Task Composition for Transfer Learning", EACL 2021, section 3.1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipelines.errors import RecipeError
from pipelines.inference.base import Base
from pipelines.inference.blocks import block_of
from pipelines.recipe import Adapters


class Adapter(nn.Module):
    """What an adapter adds to states [..., d]: zeros at its start."""

    def __init__(self, width: int, settings: Adapters) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.down = nn.Linear(width, settings.bottleneck)
        self.up = nn.Linear(settings.bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """[..., d] of states [..., d]."""
        added: Tensor = self.up(nn.functional.gelu(self.down(self.dropout(states))))
        return added


def with_adapters(base: Base, settings: Adapters) -> Base:
    """The base with an adapter in each of its layers, of an encoder-decoder in both halves.

    Raises:
        RecipeError: a layer's feed-forward part does not end in a linear map to states of the base's width.
    """
    for place in _feed_forward_ends(base):
        place.adapter = Adapter(base.hidden_width, settings)
        place.register_forward_hook(_adapted)
    return base


def _adapted(place: Any, _: Any, states: Tensor) -> Tensor:
    adapted: Tensor = states + place.adapter(states)
    return adapted


def _feed_forward_ends(base: Base) -> list[Any]:
    """The linear map that runs last in each layer, found by watching one token pass through the base."""
    linear: list[nn.Module] = [part for part in base.whole.modules() if isinstance(part, nn.Linear | Conv1D)]
    block = {part: block_of(base.whole, part) for part in linear}
    last: dict[nn.Module, Any] = {}

    def ran(part: nn.Module, *_: Any) -> None:
        if (layer := block[part]) is not None:
            last[layer] = part

    hooks = [part.register_forward_hook(ran) for part in linear]
    token = torch.zeros(1, 1, dtype=torch.long, device=base.device)
    try:
        with torch.no_grad():
            base.whole(input_ids=token, **({} if base.seq2seq is None else {"decoder_input_ids": token}))
    finally:
        for hook in hooks:
            hook.remove()
    widths = {part.weight.shape[-1 if isinstance(part, Conv1D) else 0] for part in last.values()}
    if widths != {base.hidden_width} or not {layer.block for layer in base.layers} <= last.keys():
        raise RecipeError(
            "baselines.adapters stand behind the linear map that ends each layer with states of the base's width "
            f"{base.hidden_width}; layers of this base ({base.backbone.config.model_type!r}) end otherwise. Take "
            "[baselines.lora] instead, with the names of its linear layers in `targets`."
        )
    return list(last.values())
