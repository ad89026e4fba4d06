"""A frozen base with a soft prompt in front of it: the one forward pass of training, scoring and serving.

This file travels inside every packaged model and therefore imports nothing of promptmint.

Shapes: B rows, T text positions (padding on the right), P prompt tokens, d hidden width, L layers, H_kv key/value heads
of width d_h, C classes. Padding never changes a result: a prompt stands directly before the text, and padded positions
are masked and come last, so that every base numbers its positions as it does on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .packing import Packing, pack, put, take

ATTENTION = "soft_prefix_" + __name__.replace(".", "_")  # its own name for each copy of this file in a process
SHORT = 256  # positions


@dataclass(frozen=True)
class AttentionLayer:
    """One self-attention of the base, in the order of the forward pass."""

    module: nn.Module
    kv_heads: int
    head_width: int
    mlp: nn.Module | None  # what follows it in its block, on each position alone; None: not known


@dataclass
class Base:
    """A frozen model without its task heads.

    `backbone` gives hidden states; `lm_head` turns them into vocabulary scores, where the model has one.
    """

    backbone: Any
    lm_head: Any
    decoder: bool
    layers: tuple[AttentionLayer, ...]
    packs: bool  # whether rows of different lengths may run without their padding

    @property
    def hidden_width(self) -> int:
        """d, the width of the input embeddings."""
        return int(self.embeddings.weight.shape[1])

    @property
    def embeddings(self) -> Any:
        """The table of token embeddings [vocabulary, d]."""
        return self.backbone.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.embeddings.weight.device
        return device

    @property
    def pooling(self) -> str:
        """What a linear head reads: the mean over text positions (encoders) or the last of them (decoders)."""
        return "last" if self.decoder else "mean"


def load_base(folder: Path, device: str | torch.device = "cpu") -> Base:
    """The base in a folder: float32, in eval mode, no weight asking for a gradient.

    Only safetensors are read and no code from the folder is run.

    Raises:
        ValueError: an architecture without soft prompts (encoder-decoders, for now models of text alone).
    """
    config = AutoConfig.from_pretrained(folder)
    if config.is_encoder_decoder:
        raise ValueError(
            f"The base in {str(folder)!r} is the encoder-decoder {config.model_type!r}; this version steers encoders "
            "(BERT-like) and decoders (GPT- or Llama-like)."
        )
    decoder = _is_decoder(config)
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": ATTENTION, "use_safetensors": True}
    if decoder:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
        backbone, lm_head = model.base_model, model.get_output_embeddings()
    else:
        backbone, lm_head = AutoModel.from_pretrained(folder, **options), None
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # heads read text positions, not a pooled one
    for part in filter(None, (backbone, lm_head)):
        part.eval()
        part.requires_grad_(False)
        part.to(device)
    return Base(backbone, lm_head, decoder, _attention_layers(backbone), decoder and _sees_all(config))


def _is_decoder(config: Any) -> bool:
    """Whether a checkpoint was trained left to right, by the class that it names."""
    names = config.architectures or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _sees_all(config: Any) -> bool:
    """Whether every position sees all before it, in every layer: no sliding windows, no chunks."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return window is None and all(kind == "full_attention" for kind in kinds)


# Key/value injection: one attention function for every architecture that transformers can dispatch.


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Fused attention of [B, H, T, d_h] queries, over a soft prefix first where the module carries one.

    Where it carries a packing, queries, keys and values are [1, H, N, d_h], and rows of like lengths are attended
    together.
    """
    if _watch is not None:
        _watch.append((module, key, value))
    packing: Packing | None = getattr(module, "soft_packing", None)
    prefix: tuple[Tensor, Tensor] | None = getattr(module, "soft_prefix", None)
    if packing is None:
        return _attend(module, query, key, value, attention_mask, prefix, options), None
    flat, made = [part.transpose(1, 2) for part in (query, key, value)], []
    for group in packing.groups:
        own = prefix
        if prefix is not None and prefix[0].dim() == 4:  # a prompt per row
            own = (take(prefix[0], group.rows), take(prefix[1], group.rows))
        queries, keys, values = (group.apart(part).transpose(1, 2) for part in flat)
        length = group.shape[1]
        mask = None if attention_mask is None else attention_mask[:, :, :length, :length]
        made.append(group.together(_attend(module, queries, keys, values, mask, own, options)))
    return torch.cat(made, dim=1), None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    prefix: tuple[Tensor, Tensor] | None,
    options: Mapping[str, Any],
) -> Tensor:
    """What queries [B, H, T, d_h] take from a prefix and from the text, [B, T, H, d_h]."""
    if prefix is not None:
        rows, tokens = query.shape[0], prefix[0].shape[-2]
        mask = _mask_with_prefix(module, mask, query, key, tokens, options)
        key = torch.cat([prefix[0].to(key.dtype).expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([prefix[1].to(value.dtype).expand(rows, -1, -1, -1), value], dim=2)
        options = {**options, "is_causal": False}  # where causality matters the mask above says so
    with sdpa_kernel(_kernels(query, key)):
        attended, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    return attended


def _kernels(query: Tensor, key: Tensor) -> list[SDPBackend]:
    """Plain matrices for gradients over short texts on a CPU, where torch's fused backward costs more than it saves."""
    if query.device.type == "cpu" and torch.is_grad_enabled() and key.shape[2] <= SHORT:
        return [SDPBackend.MATH]
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]


def _mask_with_prefix(
    module: nn.Module, mask: Tensor | None, query: Tensor, key: Tensor, tokens: int, options: Mapping[str, Any]
) -> Tensor | None:
    """The mask [B or 1, 1, T_q, P + T_kv] in which every position sees the prefix; None where all is seen."""
    if mask is None:
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", False) if causal is None else causal
        if not causal or query.shape[2] == 1:
            return None
        visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = visible.tril(key.shape[2] - query.shape[2])[None, None]
    shape = (*mask.shape[:-1], tokens)
    seen = mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)
    return torch.cat([seen, mask], dim=-1)


_watch: list[tuple[nn.Module, Tensor, Tensor]] | None = None  # a list while a pass is watched
AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _watched(backbone: Any, **inputs: Any) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Module, keys and values [B, H_kv, T, d_h] of each self-attention, in the order of one forward pass."""
    global _watch
    watch: list[tuple[nn.Module, Tensor, Tensor]] = []
    _watch = watch
    try:
        backbone(**inputs)
    finally:
        _watch = None
    return watch


def _attention_layers(backbone: Any) -> tuple[AttentionLayer, ...]:
    """The self-attentions, found by watching one token pass: no architecture needs to be known by name."""
    with torch.no_grad():
        seen = _watched(backbone, input_ids=torch.zeros(1, 1, dtype=torch.long, device=backbone.device))
    blocks = {child: block for block in backbone.modules() for child in block.children()}
    return tuple(AttentionLayer(module, key.shape[1], key.shape[3], _mlp(blocks[module])) for module, key, _ in seen)


def _mlp(block: nn.Module) -> nn.Module | None:
    """What follows attention in a block on each position alone, where it is one module that takes one tensor."""
    mlp = getattr(block, "mlp", None)
    alone = isinstance(mlp, nn.Module) and len(signature(mlp.forward).parameters) == 1
    return mlp if alone else None


@torch.no_grad()
def keys_and_values(base: Base, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the base's own attentions make of a text [1, T]: keys and values, each [L, H_kv, T, d_h]."""
    seen = _watched(base.backbone, input_ids=input_ids.to(base.device))
    return torch.cat([key for _, key, _ in seen]).cpu(), torch.cat([value for _, _, value in seen]).cpu()


def read_once(base: Base, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same prompt as the keys and values that a decoder makes of it, for all texts alike; gradients flow through.

    What stands before a text in a decoder does not depend on the text: reading it once costs P positions, and not P
    for every row. An encoder reads in both directions, so its prompts among the input embeddings stay as they are.
    Several prompts [K, P, d] are read in one pass, to keys and values [L, K, H_kv, P, d_h].
    """
    if not base.decoder or "embeddings" not in prompt or len({_shape(layer) for layer in base.layers}) > 1:
        return prompt
    several = prompt["embeddings"].dim() == 3
    embeddings = prompt["embeddings"].to(base.embeddings.weight.dtype)
    with _only_at(base.layers[-1].mlp, torch.arange(0, device=base.device)):  # its last states are of no use
        seen = _watched(base.backbone, inputs_embeds=embeddings if several else embeddings[None], use_cache=False)
    join = torch.stack if several else torch.cat
    return {"keys": join([key for _, key, _ in seen]), "values": join([value for _, _, value in seen])}


def _shape(layer: AttentionLayer) -> tuple[int, int]:
    return layer.kv_heads, layer.head_width


@contextmanager
def _carrying(layers: Sequence[AttentionLayer], name: str, each: Iterable[Any]) -> Iterator[None]:
    """Hang something onto each attention for one forward pass."""
    try:
        for layer, thing in zip(layers, each, strict=True):
            setattr(layer.module, name, thing)
        yield
    finally:
        for layer in layers:
            setattr(layer.module, name, None)


def _prefixed(base: Base, prompt: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Hang a prompt's keys and values [L, H_kv, P, d_h], where it has any, onto the attentions for one forward pass."""
    if "keys" not in prompt:
        return nullcontext()
    return _carrying(base.layers, "soft_prefix", zip(prompt["keys"], prompt["values"], strict=True))


# The forward pass.


def hidden_states(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    """Hidden states of the text positions, [B, T, d]; what stands at padded ones has no meaning.

    Args:
        base: the frozen model.
        input_ids: [B, T], padded on the right.
        mask: [B, T], 1 on text and 0 on padding.
        prompt: `{"embeddings": [P, d]}` (before the text, at the input), `{"keys", "values": [L, H_kv, P, d_h]}`
            (before the text, in every layer), or nothing; with a prompt per row [B, P, d] and [L, B, H_kv, P, d_h].
    """
    if "embeddings" in prompt:
        rows, tokens = input_ids.shape[0], prompt["embeddings"].shape[-2]
        embedded = base.embeddings(input_ids)
        vectors = prompt["embeddings"].to(embedded.dtype).expand(rows, -1, -1)
        embedded = torch.cat([vectors, embedded], dim=1)
        mask = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
        return _run(base, inputs_embeds=embedded, attention_mask=mask)[:, tokens:]
    with _prefixed(base, prompt):
        if not base.decoder:  # an encoder's text keeps the positions it has without a prompt
            return _run(base, input_ids=input_ids, attention_mask=mask)
        tokens = prompt["keys"].shape[-2] if "keys" in prompt else 0
        if base.packs and not bool(mask.all()):
            packing = pack(mask)
            return packing.apart(_run_packed(base, packing, input_ids, tokens))
        positions = torch.arange(tokens, tokens + input_ids.shape[1], device=input_ids.device)[None]
        return _run(base, input_ids=input_ids, attention_mask=mask, position_ids=positions)


def features(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], pooling: str) -> Tensor:
    """What a head reads, [B, d]: the hidden states of `hidden_states`, pooled as `pooled` does.

    Where that is a decoder's last text position, the MLP of its last layer runs there alone.
    """
    if not base.packs or pooling != "last" or "embeddings" in prompt:
        return pooled(hidden_states(base, input_ids, mask, prompt), mask, pooling)
    packing = pack(mask)
    with _prefixed(base, prompt), _only_at(base.layers[-1].mlp, packing.last):
        tokens = prompt["keys"].shape[-2] if "keys" in prompt else 0
        return take(_run_packed(base, packing, input_ids, tokens)[0], packing.last)


def _run(base: Base, **inputs: Tensor) -> Tensor:
    extra = {"use_cache": False} if base.decoder else {}
    states: Tensor = base.backbone(**inputs, **extra).last_hidden_state
    return states


def _run_packed(base: Base, packing: Packing, input_ids: Tensor, tokens: int) -> Tensor:
    """Hidden states [1, N, d] of a decoder's text positions behind `tokens` positions of a prompt."""
    longest = input_ids.shape[1]  # padding comes last in its row, where causality hides it from all text
    causal = torch.ones(longest, longest, dtype=torch.bool, device=input_ids.device).tril()[None, None]
    ids, positions = input_ids.flatten()[packing.places][None], packing.columns[None] + tokens
    with _carrying(base.layers, "soft_packing", [packing] * len(base.layers)):
        return _run(base, input_ids=ids, attention_mask=causal, position_ids=positions)


@contextmanager
def _only_at(mlp: nn.Module | None, places: Tensor) -> Iterator[None]:
    """Let an MLP run at some of the positions [B * T] alone; elsewhere it gives zeros, for nobody to read."""
    shape: list[int] = []

    def before(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        shape[:] = inputs[0].shape[:2]
        return take(inputs[0].flatten(0, 1), places)[None]

    def after(_: nn.Module, inputs: tuple[Tensor], made: Tensor) -> Tensor:
        return put(made[0], places, shape[0] * shape[1]).reshape(*shape, -1)

    hooks = [] if mlp is None else [mlp.register_forward_pre_hook(before), mlp.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector per row, [B, d]: the mean over text positions, or the last of them."""
    if pooling == "mean":
        weights = mask.to(states.dtype)[..., None]
        return (states * weights).sum(1) / weights.sum(1)
    last = mask.sum(1) - 1
    return states[torch.arange(len(states), device=states.device), last]


def class_scores(base: Base, features: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, C] from features [B, d]: a linear head's, or the label words' from the base's own head.

    Args:
        base: the frozen model.
        features: the pooled hidden states.
        head: `{"weight": [C, d], "bias": [C]}`, or `{"word_ids": [C]}` (a verbaliser).
    """
    if "word_ids" not in head:
        return nn.functional.linear(features, head["weight"].to(features.dtype), head["bias"].to(features.dtype))
    if base.lm_head is None:
        raise ValueError("A verbaliser needs a base with a language-model head; this one has none.")
    words, weight = head["word_ids"], base.lm_head.weight
    bias = getattr(base.lm_head, "bias", None)
    if 2 * len(words) > len(weight):
        return nn.functional.linear(features, weight, bias)[:, words]
    # Only the label words' rows of the vocabulary are multiplied.
    return nn.functional.linear(features, weight[words], None if bias is None else bias[words])


def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, each [B, T], of rows of different lengths: text first, padding after it."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
    return ids, mask
