"""Many prompts over one base in one batch: each row follows a prompt of its own.

Rows may differ in their prompt, its length and where it enters. A prompt that is the same for all texts, as keys and
values or among the input embeddings, shares a batch with any other such prompt; rows of every other kind of prompt
share one with rows of the same prompt only. What a row answers does not depend on its company.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.

Shapes: B rows, S positions (a row's input vectors, its text, padding), P tokens of the longest prefix, d hidden width,
L layers, H_kv key/value heads of width d_h, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..prompts.artifact import SoftPrompt
from ..recipe import Template
from ..tokens.template import encode
from .buckets import buckets
from .forward import Base, class_scores, hidden_states, padded, pooled, prefixed, run

BATCH_ROWS = 64
PASS_COST = 64  # positions that cost what a pass costs whatever it holds; measured: 56, tiny_llama on one core
GPU_PASS_COST = 4096  # a guess: there starting kernels costs far more than a position
MIXABLE = ({"embeddings"}, {"keys", "values"})  # what a prompt consists of, if it shares batches with others


@torch.no_grad()
def logits(base: Base, tokenizer: Any, requests: Sequence[tuple[SoftPrompt, str]]) -> list[Tensor]:
    """Class logits [C] in float32 on the CPU for each prompt and text, in their order."""
    found: dict[int, Tensor] = {}
    prompts = [prompt for prompt, _ in requests]
    rows = _token_ids(tokenizer, requests)
    for batch in _batches(base, prompts, rows):
        states, text = _states(base, [rows[place] for place in batch], [prompts[place] for place in batch])
        features = {pooling: pooled(states, text, pooling) for pooling in {_pooling(prompts[place]) for place in batch}}
        for prompt, own in _by_prompt([prompts[place] for place in batch]):
            scores = class_scores(base, features[_pooling(prompt)][own], prompt.head).float().cpu()
            found |= {batch[row]: score for row, score in zip(own, scores, strict=True)}
    return [found[place] for place in range(len(requests))]


def mixed_states(
    base: Base, rows: Sequence[Sequence[int]], prompts: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Hidden states [B, S, d] of rows that each follow a prompt of their own, and 1 where their text is, [B, S].

    Args:
        base: the frozen model.
        rows: token ids.
        prompts: one per row: `{"embeddings"}`, `{"keys", "values"}` or nothing, shaped as `hidden_states` takes them.
    """
    vectors = [prompt.get("embeddings", base.embeddings.weight[:0]) for prompt in prompts]
    ids, mask = padded([[0] * len(before) + list(row) for before, row in zip(vectors, rows, strict=True)])
    ids, mask = ids.to(base.device), mask.to(base.device)
    places = torch.arange(ids.shape[1], device=base.device)
    starts = torch.tensor([[len(before)] for before in vectors], device=base.device)
    text = mask * (places >= starts)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "embeddings" in set().union(*prompts):
        embedded = base.embeddings(inputs.pop("input_ids"))
        embedded[places < starts] = torch.cat(vectors).to(embedded.dtype)
        inputs["inputs_embeds"] = embedded
    with nullcontext() if "keys" not in set().union(*prompts) else _prefixes(base, prompts):
        if base.decoder:  # a decoder's text follows the positions of its own prefix
            lengths = torch.tensor([[_prefix_tokens(prompt)] for prompt in prompts], device=base.device)
            inputs["position_ids"] = lengths + places
        return run(base, **inputs), text


def _prefixes(base: Base, prompts: Sequence[Mapping[str, Tensor]]) -> Any:
    """The prefix of each row, stacked to [L, B, H_kv, P, d_h]; what shorter ones lack is not attended to."""
    lengths = [_prefix_tokens(prompt) for prompt in prompts]
    longest = max(lengths)
    layer, dtype = base.layers[0], base.embeddings.weight.dtype
    shape = (len(base.layers), len(prompts), layer.kv_heads, longest, layer.head_width)
    keys, values = (torch.zeros(shape, dtype=dtype, device=base.device) for _ in range(2))
    for row, (prompt, tokens) in enumerate(zip(prompts, lengths, strict=True)):
        if tokens:
            keys[:, row, :, :tokens], values[:, row, :, :tokens] = prompt["keys"], prompt["values"]
    present = torch.arange(longest, device=base.device) < torch.tensor(lengths, device=base.device)[:, None]
    return prefixed(base.layers, keys, values, None if min(lengths) == longest else present)


def _prefix_tokens(prompt: Mapping[str, Tensor]) -> int:
    return prompt["keys"].shape[-2] if "keys" in prompt else 0


def _states(base: Base, rows: Sequence[Sequence[int]], prompts: Sequence[SoftPrompt]) -> tuple[Tensor, Tensor]:
    """Hidden states and places of text, as `mixed_states` gives them; a prompt that is alone is not copied per row."""
    if len({prompt.digest for prompt in prompts}) > 1:
        return mixed_states(base, rows, [prompt.tensors for prompt in prompts])
    ids, mask = (part.to(base.device) for part in padded(rows))
    return hidden_states(base, ids, mask, prompts[0].tensors), mask


def _pooling(prompt: SoftPrompt) -> str:
    pooling: str = prompt.card["head"]["pooling"]
    return pooling


def _token_ids(tokenizer: Any, requests: Sequence[tuple[SoftPrompt, str]]) -> list[list[int]]:
    """Each text in its prompt's template; texts with the same template are encoded together."""
    places: dict[Template, list[int]] = defaultdict(list)
    for place, (prompt, _) in enumerate(requests):
        places[Template(**prompt.card["template"])].append(place)
    found: dict[int, list[int]] = {}
    for template, own in places.items():
        encoded = encode(tokenizer, template, [requests[place][1] for place in own])
        found |= {place: row.input_ids for place, row in zip(own, encoded, strict=True)}
    return [found[place] for place in range(len(requests))]


def _batches(base: Base, prompts: Sequence[SoftPrompt], rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Which rows share a forward pass: of prompts that can be mixed, or of one prompt, and of like lengths."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        kinds["mixed" if set(prompt.tensors) in MIXABLE else prompt.digest].append(place)
    pass_cost = PASS_COST if base.device.type == "cpu" else GPU_PASS_COST
    for places in kinds.values():
        for batch in buckets([len(rows[place]) for place in places], BATCH_ROWS, pass_cost):
            yield [places[place] for place in batch]


def _by_prompt(prompts: Sequence[SoftPrompt]) -> Iterator[tuple[SoftPrompt, list[int]]]:
    """Each prompt of a batch with its rows."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt.digest].append(row)
    for own in rows.values():
        yield prompts[own[0]], own
