"""What of a prompt depends on the text: prompts made for each row, and updates of the text's own embeddings.

These prompts do not fold. An artifact keeps what makes them, by the names below, and every pass makes them anew.

    gate_u_in [m, d]  gate_u_in_bias [m]  gate_u_out [P * r, m]  gate_u_out_bias [P * r]    an instance gate's U
    gate_v_in [m, d]  gate_v_in_bias [m]  gate_v_out [d * r, m]  gate_v_out_bias [d * r]    and its V
    offsets_a [S, r]  offsets_b [r, d]                                                      what embeddings get added
    pool_down [L, r, d]  pool_down_bias [L, r]  pool_queries [L, P, r]                      a generator in each layer
    pool_up [L, d, r]  pool_up_bias [L, d]

B rows, T text positions, P prompt tokens, L layers, d hidden width, m hidden width of a gate, r rank, S positions that
have an offset.

This file travels inside every packaged model and imports nothing of promptmint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def gated(prompt: Mapping[str, Tensor], encoding: Tensor) -> Tensor:
    """A prompt for each row, [B, P, d], from the table `embeddings` [P, d] and an encoding [B, d] of each text.

    Row by row E * sigmoid(U V^T), where U [P, r] and V [d, r] are what two networks Linear-tanh-Linear make of the
    encoding. Jain et al., "Prompt Tuning Strikes Back: Customizing Foundation Models with Low-Rank Prompt Adaptation",
    NeurIPS 2024.
    """
    table = prompt["embeddings"]
    encoding = encoding.to(table.dtype)
    u = _network(prompt, "gate_u", encoding).view(len(encoding), table.shape[0], -1)  # [B, P, r]
    v = _network(prompt, "gate_v", encoding).view(len(encoding), table.shape[1], -1)  # [B, d, r]
    return table * torch.sigmoid(u @ v.mT)


def _network(prompt: Mapping[str, Tensor], name: str, encoding: Tensor) -> Tensor:
    inner = functional.linear(encoding, prompt[f"{name}_in"], prompt[f"{name}_in_bias"])
    return functional.linear(inner.tanh(), prompt[f"{name}_out"], prompt[f"{name}_out_bias"])


def generated(prompt: Mapping[str, Tensor], layer: int, states: Tensor, mask: Tensor) -> Tensor:
    """A layer's prompt for each row, [B, P, d], from the text's hidden states [B, T, d] that the layer reads.

    The states are projected to r numbers, D [T, r]; P queries attend to them, softmax(Q D^T / sqrt(r)) D [P, r]; GELU,
    and a projection back to d. Zhu et al., "IAPT: Instance-Aware Prompt Tuning for Large Language Models", ACL 2024,
    with GELU in the place of an activation that is learnt for each layer, and no sharing between layers.
    """
    inner = functional.linear(states, *_layer(prompt, "pool_down", layer, states.dtype))  # [B, T, r]
    queries = prompt["pool_queries"][layer].to(states.dtype).expand(len(states), -1, -1)
    summary = functional.scaled_dot_product_attention(queries, inner, inner, mask[:, None].bool())  # [B, P, r]
    return functional.linear(functional.gelu(summary), *_layer(prompt, "pool_up", layer, states.dtype))


def _layer(prompt: Mapping[str, Tensor], name: str, layer: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return prompt[name][layer].to(dtype), prompt[f"{name}_bias"][layer].to(dtype)


def with_offsets(prompt: Mapping[str, Tensor], embedded: Tensor) -> Tensor:
    """Token embeddings [B, T, d], row t of A B added to the one at position t; those from S on stay as they are.

    Without `offsets_a` and `offsets_b` the embeddings themselves. Shi and Lipani, "DePT: Decomposed Prompt Tuning for
    Parameter-Efficient Fine-tuning", ICLR 2024, section 2.2.
    """
    if "offsets_a" not in prompt:
        return embedded
    offsets = prompt["offsets_a"][: embedded.shape[1]] @ prompt["offsets_b"]
    rest = embedded.shape[1] - len(offsets)
    return embedded + functional.pad(offsets, (0, 0, 0, rest)).to(embedded.dtype)
