"""What a head reads of each text, with as little work as its last layer allows.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..tokens.template import MARKER
from .attention import packed
from .base import Base
from .blocks import only_at
from .forward import hidden_states, pooled, states_behind
from .inserted import inserted
from .packing import pack, take


def features(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], pooling: str) -> Tensor:
    """What a head reads, [B, d]: the states of `hidden_states`, pooled as `pooled` does; the arguments are theirs.

    Where that is a decoder's last text position, its rows run packed, and the MLP of its last layer there alone. A
    prompt before the text is better given as `read_once` makes it; prompts of other kinds run as in `hidden_states`.
    There a prompt may also be what `mixed.py` stacks: keys and values per row, and which of them are `present` in it.
    Keys and values may be there beside `inserted` vectors: of what stands before the rows that are given.
    """
    if not base.packs or pooling != "last" or set(prompt) - {"keys", "values", "present", "inserted"}:
        states = hidden_states(base, input_ids, mask, prompt)
        return pooled(states, mask if pooling == "last" else mask * (input_ids != MARKER), pooling)
    inputs = input_ids
    if "inserted" in prompt:
        _, inputs, mask = inserted(base, input_ids, mask, prompt["inserted"])
    packing, longest = pack(mask), mask.shape[1]
    tokens: int | Tensor = prompt["keys"].shape[-2] if "keys" in prompt else 0
    if "present" in prompt:  # each row follows a prefix of its own length
        tokens = prompt["present"].sum(1)[packing.places // longest]
    # Padding comes last in its row, where causality hides it from all text: one mask serves every row.
    causal = torch.ones(longest, longest, dtype=torch.bool, device=mask.device).tril()[None, None]
    text, positions = take(inputs.flatten(0, 1), packing.places)[None], packing.columns[None] + tokens
    named = {"inputs_embeds" if "inserted" in prompt else "input_ids": text}
    prefix: Mapping[str, Tensor] = {name: tensor for name, tensor in prompt.items() if name != "inserted"}
    if "keys" in prefix and prefix["keys"].dim() == 5:
        prefix = _sorted(prefix, packing.order)
    with packed(base.attentions, packing), only_at(base.layers[-1].block, packing.last):
        states = states_behind(base, prefix, **named, attention_mask=causal, position_ids=positions)
    return take(states[0], packing.last)


def _sorted(prompt: Mapping[str, Tensor], order: Tensor) -> Mapping[str, Tensor]:
    """Prompts per row in the order of a packing; as they are where that is theirs."""
    if bool((order[1:] > order[:-1]).all()):
        return prompt
    places = {"keys": 1, "values": 1, "present": 0}
    return {
        name: take(tensor.transpose(0, places[name]), order).transpose(0, places[name])
        for name, tensor in prompt.items()
    }
