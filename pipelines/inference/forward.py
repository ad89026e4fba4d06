"""A frozen base with a soft prompt in front of it: the one forward pass of training, scoring and serving.

This file travels inside every packaged model and therefore imports nothing of promptmint by its absolute name.

What reads the text is an encoder (BERT-like), a decoder (GPT- or Llama-like), or the encoder of an encoder-decoder (T5-
or BART-like). There the prompt enters the encoder, at its input (as in Lester et al. 2021, section 2) or in its
self-attentions; a linear head reads the encoder's text positions, while label words are what the decoder says:
`label_words.py`.

Shapes: B rows, T text positions (padding on the right), P prompt tokens, d hidden width, L layers, H_kv key/value heads
of width d_h, C classes. Padding never changes a result: a prompt stands directly before the text, and padded positions
are masked and come last, so that every base numbers its positions as it does on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .blocks import block_of, keeping, left_out, only_at, reading, running
from .instance import gated, generated, with_offsets
from .packing import Packing, take

ATTENTION = "soft_prefix_" + __name__.replace(".", "_")  # its own name for each copy of this file in a process
SHORT = 256  # positions
Prefix = tuple[Tensor, Tensor, Tensor | None]  # keys, values, and which of them a row has


@dataclass(frozen=True)
class AttentionLayer:
    """One self-attention of the base, in the order of the forward pass."""

    module: nn.Module
    kv_heads: int
    head_width: int
    block: nn.Module | None  # the layer it is part of, hidden states in and hidden states out


@dataclass
class Base:
    """A frozen model without its task heads.

    `backbone` reads the text and gives hidden states; `lm_head` turns them, or those of the decoder of an
    encoder-decoder, into vocabulary scores, where the model has one.
    """

    backbone: Any
    lm_head: Any
    decoder: bool
    layers: tuple[AttentionLayer, ...]  # of the backbone
    seq2seq: Any = None  # an encoder-decoder as a whole; its encoder is the backbone
    separator: int | None = None  # the token that ends a segment, where the base tells the first from the second
    packs: bool = False  # whether rows of different lengths may run without their padding: see `features.py`

    @property
    def whole(self) -> Any:
        """The backbone, or the encoder-decoder that it is part of."""
        return self.backbone if self.seq2seq is None else self.seq2seq

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
        ValueError: an architecture without soft prompts: it reads more than text, or its attention is its own.
    """
    config = AutoConfig.from_pretrained(folder)
    decoder, seq2seq = _is_decoder(config), None
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": ATTENTION, "use_safetensors": True}
    if config.is_encoder_decoder:
        seq2seq = AutoModelForSeq2SeqLM.from_pretrained(folder, **options)
        backbone, lm_head = seq2seq.get_encoder(), seq2seq.get_output_embeddings()
    elif decoder:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
        backbone, lm_head = model.base_model, model.get_output_embeddings()
    else:
        backbone, lm_head = AutoModel.from_pretrained(folder, **options), None
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # heads read text positions, not a pooled one
    for part in filter(None, (backbone, lm_head, seq2seq)):
        part.eval()
        part.requires_grad_(False)
        part.to(device)
    layers, packs = _attention_layers(backbone), decoder and _sees_all(config)
    return Base(backbone, lm_head, decoder, layers, seq2seq, _separator(folder, config), packs)


def _is_decoder(config: Any) -> bool:
    """Whether a checkpoint was trained left to right, by the class that it names."""
    names = config.architectures or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _sees_all(config: Any) -> bool:
    """Whether every position of a decoder sees all before it, in every layer: no sliding windows, no chunks."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return window is None and all(kind == "full_attention" for kind in kinds)


def _separator(folder: Path, config: Any) -> int | None:
    """The token that ends a segment of a base with token types (BERT-like), as its tokenizer says."""
    if getattr(config, "type_vocab_size", 0) < 2 or not (folder / "tokenizer_config.json").exists():
        return None
    separator: int | None = AutoTokenizer.from_pretrained(folder).sep_token_id
    return separator


# Key/value injection: one attention function for every architecture that transformers can dispatch.


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Fused attention of [B, H, T, d_h] queries, over a soft prefix first where the module carries one.

    A prefix is keys and values, each [H_kv, P, d_h] for all rows or [B, H_kv, P, d_h], and which of them a row has,
    [B, P], where rows differ in that. Where the module carries a packing, queries, keys and values are [1, H, N, d_h],
    and rows of like lengths are attended together.
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
        if prefix is not None and prefix[0].dim() == 4:  # a prompt per row
            present = None if prefix[2] is None else prefix[2][group.rows]
            own = (take(prefix[0], group.rows), take(prefix[1], group.rows), present)
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
    return tuple(
        AttentionLayer(module, key.shape[1], key.shape[3], block_of(backbone, module)) for module, key, _ in seen
    )


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
    if not base.decoder or set(prompt) != {"embeddings"} or len({_shape(layer) for layer in base.layers}) > 1:
        return prompt
    embeddings = prompt["embeddings"].to(base.embeddings.weight.dtype)
    several = embeddings.dim() == 3
    with only_at(base.layers[-1].block, torch.arange(0, device=base.device)):  # its last states are of no use
        seen = _watched(base.backbone, inputs_embeds=embeddings if several else embeddings[None], use_cache=False)
    join = torch.stack if several else torch.cat
    return {"keys": join([key for _, key, _ in seen]), "values": join([value for _, _, value in seen])}


def _shape(layer: AttentionLayer) -> tuple[int, int]:
    return layer.kv_heads, layer.head_width


@contextmanager
def _prefixed(
    layers: Sequence[AttentionLayer], keys: Tensor, values: Tensor, present: Tensor | None = None
) -> Iterator[None]:
    """Hang a prefix onto the attentions for one forward pass.

    Args:
        layers: of the base.
        keys: [L, H_kv, P, d_h], the same for all rows, or [L, B, H_kv, P, d_h]; `values` are shaped alike.
        present: [B, P], False where a row's prefix is shorter; None where all are of one length.
    """
    try:
        for layer, key, value in zip(layers, keys, values, strict=True):
            layer.module.soft_prefix = (key, value, present)  # type: ignore[assignment]
        yield
    finally:
        for layer in layers:
            layer.module.soft_prefix = None  # type: ignore[assignment]


# The forward pass.


def hidden_states(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    """Hidden states of the text positions, [B, T, d].

    Args:
        base: the frozen model.
        input_ids: [B, T], padded on the right.
        mask: [B, T], 1 on text and 0 on padding.
        prompt: `{"embeddings": [P, d]}` (before the text, at the input; [B, P, d] where each row has its own),
            `{"keys", "values": [L, H_kv, P, d_h]}` (before the text, in every layer), `{"layer_M": [P, d]}` (before the
            text, among the hidden states that layer M reads, counted from 0), or nothing; or the tensors that make a
            prompt from each text, or offsets of its embeddings, as `instance.py` names them.
    """
    return read(base, input_ids, mask, prompt)[0][:, -input_ids.shape[1] :]


def read(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states of the text, behind those of a prompt among the input embeddings, [B, P + T, d], and their mask.

    The arguments are those of `hidden_states`.
    """
    if "pool_queries" in prompt:
        return _generated_throughout(base, input_ids, mask, prompt), mask
    prompt = opened(base, input_ids, mask, prompt)
    if (layer := entered_layer(prompt)) is not None:
        below = states_at(base, input_ids, mask, layer)
        return states_from(base, below, mask, layer, prompt[f"layer_{layer}"]), mask
    if "embeddings" in prompt:
        rows, tokens = input_ids.shape[0], prompt["embeddings"].shape[-2]
        embedded = with_offsets(prompt, base.embeddings(input_ids))
        vectors = prompt["embeddings"].to(embedded.dtype).expand(rows, -1, -1)
        embedded = torch.cat([vectors, embedded], dim=1)
        mask = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
        types = token_types(base, nn.functional.pad(input_ids, (tokens, 0)))
        return _run(base, inputs_embeds=embedded, attention_mask=mask, **types), mask
    if "keys" in prompt:
        with _prefixed(base.layers, prompt["keys"], prompt["values"]):
            if not base.decoder:  # an encoder's text keeps the positions it has without a prompt
                return _run(base, input_ids=input_ids, attention_mask=mask), mask
            tokens = prompt["keys"].shape[-2]  # a decoder's text follows the P positions of the prompt
            positions = torch.arange(tokens, tokens + input_ids.shape[1], device=input_ids.device)[None]
            return _run(base, input_ids=input_ids, attention_mask=mask, position_ids=positions), mask
    return _run(base, input_ids=input_ids, attention_mask=mask), mask


def states_behind(base: Base, prefix: Mapping[str, Tensor], **inputs: Any) -> Tensor:
    """What the backbone makes of its inputs, [B, T, d], each row behind keys and values that may be its own.

    `prefix` is nothing, or `keys` and `values`, and `present` where rows have not all of them: see `_prefixed`.
    """
    if not prefix:
        return _run(base, **inputs)
    with _prefixed(base.layers, prefix["keys"], prefix["values"], prefix.get("present")):
        return _run(base, **inputs)


def _run(base: Base, **inputs: Any) -> Tensor:
    if "input_ids" in inputs:
        inputs |= token_types(base, inputs["input_ids"])
    extra = {"use_cache": False} if base.decoder else {}
    states: Tensor = base.backbone(**{**extra, **inputs}).last_hidden_state
    return states


def token_types(base: Base, input_ids: Tensor) -> dict[str, Tensor]:
    """Token types [B, T] of a base that has them: 0 up to the first separator, 1 after it; nothing for other bases."""
    if base.separator is None:
        return {}
    ends = (input_ids == base.separator).long()
    return {"token_type_ids": (ends.cumsum(1) - ends).clamp(max=1)}


def pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector per row, [B, d]: the mean over text positions, or the last of them."""
    if pooling == "mean":
        weights = mask.to(states.dtype)[..., None]
        return (states * weights).sum(1) / weights.sum(1)
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * places).argmax(1)
    return states[torch.arange(len(states), device=states.device), last]


def class_scores(base: Base, features: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, C] from features [B, d]: a linear head's, or the label words' from a decoder's own head.

    Label words of several tokens, and what an encoder-decoder says, are not to be had from features: `word_scores`.

    Args:
        base: the frozen model.
        features: the pooled hidden states.
        head: `{"weight": [C, d], "bias": [C]}`, or `{"word_ids": [C]}` (a verbaliser).

    Raises:
        ValueError: the base has no language-model head, or the label words have to be read.
    """
    if "word_ids" not in head:
        return nn.functional.linear(features, head["weight"].to(features.dtype), head["bias"].to(features.dtype))
    if base.lm_head is None:
        raise ValueError("A verbaliser needs a base with a language-model head; this one has none.")
    if head["word_ids"].dim() > 1 or base.seq2seq is not None:
        raise ValueError("These label words are scored by reading them: use word_scores in the place of class_scores.")
    words, weight = head["word_ids"], base.lm_head.weight
    bias = getattr(base.lm_head, "bias", None)
    if 2 * len(words) > len(weight):
        return nn.functional.linear(features, weight, bias)[:, words]
    # Only the label words' rows of the vocabulary are multiplied.
    return nn.functional.linear(features, weight[words], None if bias is None else bias[words])


# What depends on the text, and what enters between layers.


@torch.no_grad()
def encoding(base: Base, input_ids: Tensor, mask: Tensor) -> Tensor:
    """What the base itself makes of each text, [B, d]: pooled hidden states, no prompt anywhere. It never changes."""
    return pooled(_run(base, input_ids=input_ids, attention_mask=mask), mask, base.pooling)


def opened(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A prompt behind a gate as the vectors [B, P, d] that each text opens it to; other prompts as they are."""
    if "gate_u_in" not in prompt:
        return prompt
    return {"embeddings": gated(prompt, encoding(base, input_ids, mask))}


def entered_layer(prompt: Mapping[str, Tensor]) -> int | None:
    """The layer that a prompt enters at, None for prompts that are there from the start."""
    return next((int(name.removeprefix("layer_")) for name in prompt if name.startswith("layer_")), None)


@torch.no_grad()
def states_at(base: Base, input_ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    """The hidden states [B, T, d] of a text that `layer` reads where there is no prompt: the same for every prompt."""
    kept: list[Tensor] = []
    above = _blocks(base)[layer:]
    with running(above, [keeping(kept), *[left_out] * (len(above) - 1)]):
        _run(base, input_ids=input_ids, attention_mask=mask)
    return kept[0]


def states_from(base: Base, states: Tensor, mask: Tensor, layer: int, vectors: Tensor) -> Tensor:
    """Hidden states [B, T, d] of the text after the layers from `layer` on, before which the prompt was put.

    Positions are those that the base gives to P + T of them. What a base adds to its input for a position was added
    below, to the text alone; where it turns keys by position, only distances between positions count.

    Args:
        base: the frozen model.
        states: [B, T, d], from `states_at`.
        mask: [B, T], 1 on text and 0 on padding.
        layer: the first that reads the prompt.
        vectors: the prompt, [P, d] or [B, P, d].
    """
    states, mask = _behind(vectors, states, mask)
    *below, entered = _blocks(base)[: layer + 1]
    with running([*below, entered], [*[left_out] * layer, reading(entered, lambda _: states)]):
        return _run(base, inputs_embeds=states, attention_mask=mask)[:, vectors.shape[-2] :]


def _generated_throughout(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    """Hidden states [B, T, d] of a text before which every layer finds a prompt made of what it reads of the text."""
    blocks, tokens = _blocks(base), prompt["pool_queries"].shape[1]
    nothing = base.embeddings.weight.new_zeros(tokens, base.hidden_width)  # no layer reads it
    inputs, seen = _behind(nothing, base.embeddings(input_ids), mask)

    def behind_its_own(layer: int, states: Tensor) -> Tensor:
        text = states[:, tokens:]
        return _behind(generated(prompt, layer, text, mask), text, mask)[0]

    types = token_types(base, nn.functional.pad(input_ids, (tokens, 0)))
    with running(blocks, [reading(block, partial(behind_its_own, layer)) for layer, block in enumerate(blocks)]):
        return _run(base, inputs_embeds=inputs, attention_mask=seen, **types)[:, tokens:]


def _blocks(base: Base) -> list[nn.Module]:
    return [layer.block for layer in base.layers if layer.block is not None]


def _behind(vectors: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """States [B, P + T, d] and their mask [B, P + T]: the text's, behind a prompt of [P, d] or [B, P, d]."""
    rows, tokens = len(states), vectors.shape[-2]
    states = torch.cat([vectors.to(states.dtype).expand(rows, -1, -1), states], dim=1)
    return states, torch.cat([mask.new_ones(rows, tokens), mask], dim=1)


def padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, each [B, T], of rows of different lengths: text first, padding after it."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
    return ids, mask
