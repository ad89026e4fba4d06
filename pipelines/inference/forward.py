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

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .attention import prefixed, watched
from .base import AttentionLayer, Base
from .blocks import keeping, left_out, only_at, reading, running
from .inserted import inserted, own_states
from .instance import gated, generated, with_offsets


def hidden_states(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Tensor:
    """Hidden states of the text positions, [B, T, d].

    Args:
        base: the frozen model.
        input_ids: [B, T], padded on the right.
        mask: [B, T], 1 on text and 0 on padding.
        prompt: `{"embeddings": [P, d]}` (before the text, at the input; [B, P, d] where each row has its own),
            `{"inserted": [P, d]}` (at the input, where each row has its marker: `inserted.py`), `{"keys", "values":
            [L, H_kv, P, d_h]}` (before the text, in every layer), `{"layer_M": [P, d]}` (before the text, among the
            hidden states that layer M reads, counted from 0), or nothing; or the tensors that make a
            prompt from each text, or offsets of its embeddings, as `instance.py` names them.
    """
    states, _ = read(base, input_ids, mask, prompt)
    return own_states(states, input_ids) if "inserted" in prompt else states[:, -input_ids.shape[1] :]


def read(base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states of the text with those of a prompt among the input embeddings, [B, P + T, d], and their mask.

    The arguments are those of `hidden_states`; the prompt comes first, unless the rows say where it stands.
    """
    if "pool_queries" in prompt:
        return _generated_throughout(base, input_ids, mask, prompt), mask
    prompt = opened(base, input_ids, mask, prompt)
    if (layer := entered_layer(prompt)) is not None:
        below = states_at(base, input_ids, mask, layer)
        return states_from(base, below, mask, layer, prompt[f"layer_{layer}"]), mask
    if "inserted" in prompt:
        ids, embedded, mask = inserted(base, input_ids, mask, prompt["inserted"])
        return _run(base, inputs_embeds=embedded, attention_mask=mask, **token_types(base, ids)), mask
    if "embeddings" in prompt:
        rows, tokens = input_ids.shape[0], prompt["embeddings"].shape[-2]
        embedded = with_offsets(prompt, base.embeddings(input_ids))
        vectors = prompt["embeddings"].to(embedded.dtype).expand(rows, -1, -1)
        embedded = torch.cat([vectors, embedded], dim=1)
        mask = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
        types = token_types(base, nn.functional.pad(input_ids, (tokens, 0)))
        return _run(base, inputs_embeds=embedded, attention_mask=mask, **types), mask
    if "keys" in prompt:
        with prefixed(base.attentions, prompt["keys"], prompt["values"]):
            if not base.decoder:  # an encoder's text keeps the positions it has without a prompt
                return _run(base, input_ids=input_ids, attention_mask=mask), mask
            tokens = prompt["keys"].shape[-2]  # a decoder's text follows the P positions of the prompt
            positions = torch.arange(tokens, tokens + input_ids.shape[1], device=input_ids.device)[None]
            return _run(base, input_ids=input_ids, attention_mask=mask, position_ids=positions), mask
    return _run(base, input_ids=input_ids, attention_mask=mask), mask


def states_behind(base: Base, prefix: Mapping[str, Tensor], **inputs: Any) -> Tensor:
    """What the backbone makes of its inputs, [B, T, d], each row behind keys and values that may be its own.

    `prefix` is nothing, or `keys` and `values`, and `present` where rows have not all of them: see `prefixed`.
    """
    if not prefix:
        return _run(base, **inputs)
    with prefixed(base.attentions, prefix["keys"], prefix["values"], prefix.get("present")):
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


def scores_by_own_heads(base: Base, features: Tensor, heads: Mapping[str, Tensor]) -> Tensor:
    """Logits [B, C] from features [B, d], each row by a head of its own; `heads` are stacked, as in `class_scores`.

    Args:
        base: the frozen model.
        features: the pooled hidden states.
        heads: `{"weight": [B, C, d], "bias": [B, C]}`, or `{"word_ids": [B, C]}`.

    Raises:
        ValueError: the base has no language-model head.
    """
    if "word_ids" not in heads:
        weight, bias = heads["weight"].to(features.dtype), heads["bias"].to(features.dtype)
        return torch.baddbmm(bias[..., None], weight, features[..., None])[..., 0]
    if base.lm_head is None:
        raise ValueError("A verbaliser needs a base with a language-model head; this one has none.")
    words, of_words = heads["word_ids"], getattr(base.lm_head, "bias", None)
    said: Tensor = (base.lm_head.weight[words] @ features[..., None])[..., 0]
    return said if of_words is None else said + of_words[words]


# A prompt as keys and values.


@torch.no_grad()
def keys_and_values(base: Base, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the base's own attentions make of a text [1, T]: keys and values, each [L, H_kv, T, d_h]."""
    with only_at(base.layers[-1].block, torch.arange(0, device=base.device)):  # its last states are of no use
        seen = watched(base.backbone, input_ids=input_ids.to(base.device))
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
        seen = watched(base.backbone, inputs_embeds=embeddings if several else embeddings[None], use_cache=False)
    join = torch.stack if several else torch.cat
    return {"keys": join([key for _, key, _ in seen]), "values": join([value for _, _, value in seen])}


def _shape(layer: AttentionLayer) -> tuple[int, int]:
    return layer.kv_heads, layer.head_width


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
    entered, *above = _blocks(base)[layer:]
    with running([entered, *above], [keeping(entered, kept), *map(left_out, above)]):
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
    with running([*below, entered], [*map(left_out, below), reading(entered, lambda _: states)]):
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
