"""What of a prompt depends on the text: prompts made for each row, and updates of the text's own embeddings.

These prompts do not fold. An artifact keeps what makes them, by the names below, and every pass makes them anew.

    gate_u_in [m, d]  gate_u_in_bias [m]  gate_u_out [P * r, m]  gate_u_out_bias [P * r]    an instance gate's U
    gate_v_in [m, d]  gate_v_in_bias [m]  gate_v_out [d * r, m]  gate_v_out_bias [d * r]    and its V
    offsets_a [S, r]  offsets_b [r, d]                                                      what embeddings get added

B rows, T text positions, P prompt tokens, d hidden width, m hidden width of a gate, r rank, S positions with an offset.

This file travels inside every packaged model and imports nothing of promptmint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def has_gate(prompt: Mapping[str, Tensor]) -> bool:
    """Whether the prompt is another one for each text."""
    return "gate_u_in" in prompt


def gated(prompt: Mapping[str, Tensor], encoding: Tensor) -> Tensor:
    """A prompt for each row, [B, P, d], from the table `embeddings` [P, d] and an encoding [B, d] of each text.

    Row by row E * sigmoid(U V^T), where U [P, r] and V [d, r] are what two networks Linear-tanh-Linear make of the
    encoding. Jain et al., "Prompt Tuning Strikes Back: Customizing Foundation Models with Low-Rank Prompt Adaptation",
    NeurIPS 2024.
    """
    table = prompt["embeddings"]
    encoding = encoding.to(table.dtype)
    u = _network(prompt, "gate_u", encoding).unflatten(1, (table.shape[0], -1))  # [B, P, r]
    v = _network(prompt, "gate_v", encoding).unflatten(1, (table.shape[1], -1))  # [B, d, r]
    return table * torch.sigmoid(u @ v.mT)


def _network(prompt: Mapping[str, Tensor], name: str, encoding: Tensor) -> Tensor:
    inner = functional.linear(encoding, prompt[f"{name}_in"], prompt[f"{name}_in_bias"])
    return functional.linear(inner.tanh(), prompt[f"{name}_out"], prompt[f"{name}_out_bias"])


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
