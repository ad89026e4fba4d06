"""Attention that reads a soft prefix before the text: one function for every architecture transformers can dispatch.

This file travels inside every packaged model and imports nothing of promptmint by its absolute name.

Shapes: B rows, T positions, P tokens of a prefix, H heads, H_kv key/value heads of width d_h, L layers; N positions of
all rows where they are packed without their padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .packing import Packing

ATTENTION = "soft_prefix_" + __name__.replace(".", "_")  # its own name for each copy of this file in a process
SHORT = 256  # positions
Prefix = tuple[Tensor, Tensor, Tensor | None]  # keys, values, and which of them a row has


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Fused attention of [B, H, T, d_h] queries, over a soft prefix first where the module carries one.

    A prefix is keys and values, each [H_kv, P, d_h] for all rows or [B, H_kv, P, d_h], and which of them a row has,
    [B, P], where rows differ in that. Where the module carries a packing, queries, keys and values are [1, H, N, d_h],
    rows of like lengths are attended together, and prefixes per row lie in the packing's order.
    """
    if _watch is not None:
        _watch.append((module, key, value))
    prefix: Prefix | None = getattr(module, "soft_prefix", None)
    packing: Packing | None = getattr(module, "soft_packing", None)
    if packing is None:
        return _attend(module, query, key, value, attention_mask, prefix, options), None
    flat, made = [part.transpose(1, 2) for part in (query, key, value)], []
    for group in packing.groups:
        own, length = prefix, group.shape[1]
        if prefix is not None and prefix[0].dim() == 4:  # a prompt per row, sorted as the packing sorts the rows
            own = (prefix[0][group.rows], prefix[1][group.rows], None if prefix[2] is None else prefix[2][group.rows])
        queries, keys, values = (group.apart(part).transpose(1, 2) for part in flat)
        mask = None if attention_mask is None else attention_mask[:, :, :length, :length]
        made.append(group.together(_attend(module, queries, keys, values, mask, own, options)))
    return torch.cat(made, dim=1), None


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, prefix: Prefix | None,
    options: dict[str, Any],
) -> Tensor:  # fmt: skip
    """What queries [B, H, T, d_h] take from a prefix and from the text, [B, T, H, d_h]."""
    if prefix is not None:
        keys, values, present = prefix
        rows, tokens = query.shape[0], keys.shape[-2]
        mask = _mask_with_prefix(module, mask, query, key, tokens, present, options)
        key = torch.cat([keys.to(key.dtype).expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([values.to(value.dtype).expand(rows, -1, -1, -1), value], dim=2)
        options = {**options, "is_causal": False}  # where causality matters the mask above says so
        if options.get("position_bias") is not None:  # T5 knows places by a bias on scores [1, H, T_q, T_kv]
            options["position_bias"] = nn.functional.pad(options["position_bias"], (tokens, 0))  # a prefix has none
    with sdpa_kernel(_kernels(query, key)):
        attended: Tensor = sdpa_attention_forward(module, query, key, value, mask, **options)[0]
    return attended


def _kernels(query: Tensor, key: Tensor) -> list[SDPBackend]:
    """Plain matrices for gradients over short texts on a CPU, where torch's fused backward costs more than it saves."""
    if query.device.type == "cpu" and torch.is_grad_enabled() and key.shape[2] <= SHORT:
        return [SDPBackend.MATH]
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]


def _mask_with_prefix(
    module: nn.Module, mask: Tensor | None, query: Tensor, key: Tensor, tokens: int, present: Tensor | None,
    options: Mapping[str, Any],
) -> Tensor | None:  # fmt: skip
    """The mask [B or 1, 1, T_q, P + T_kv] in which every position sees its row's prefix; None where all is seen."""
    if mask is None:
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", False) if causal is None else causal
        causal = causal and query.shape[2] > 1
        if not causal and present is None:
            return None
        visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = (visible.tril(key.shape[2] - query.shape[2]) if causal else visible)[None, None]
    if present is not None:
        mask = mask.expand(len(present), -1, -1, -1)
    shape = (*mask.shape[:-1], tokens)
    seen = torch.ones(shape, dtype=torch.bool, device=mask.device) if present is None else present[:, None, None]
    seen = seen.expand(shape)
    if mask.dtype != torch.bool:  # numbers that are added to the scores
        seen = mask.new_zeros(shape).masked_fill(~seen, torch.finfo(mask.dtype).min)
    return torch.cat([seen, mask], dim=-1)


_watch: list[tuple[nn.Module, Tensor, Tensor]] | None = None  # a list while a pass is watched
AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def watched(backbone: Any, **inputs: Any) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Module, keys and values [B, H_kv, T, d_h] of each self-attention, in the order of one forward pass."""
    global _watch
    watch: list[tuple[nn.Module, Tensor, Tensor]] = []
    _watch = watch
    try:
        backbone(**inputs)
    finally:
        _watch = None
    return watch


@contextmanager
def prefixed(
    modules: Sequence[nn.Module], keys: Tensor, values: Tensor, present: Tensor | None = None
) -> Iterator[None]:
    """Hang a prefix onto the attentions for one forward pass.

    Args:
        modules: the attentions of a base.
        keys: [L, H_kv, P, d_h], the same for all rows, or [L, B, H_kv, P, d_h]; `values` are shaped alike.
        present: [B, P], False where a row's prefix is shorter; None where all are of one length.
    """
    try:
        for module, key, value in zip(modules, keys, values, strict=True):
            module.soft_prefix = (key, value, present)  # type: ignore[assignment]
        yield
    finally:
        for module in modules:
            module.soft_prefix = None  # type: ignore[assignment]


@contextmanager
def packed(modules: Sequence[nn.Module], packing: Packing) -> Iterator[None]:
    """Hang a packing onto the attentions for one forward pass."""
    try:
        for module in modules:
            module.soft_packing = packing  # type: ignore[assignment]
        yield
    finally:
        for module in modules:
            module.soft_packing = None  # type: ignore[assignment]
