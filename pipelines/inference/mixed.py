"""Many prompts over one base in one batch: each row follows a prompt of its own.

Rows may differ in their prompt, its length and where it enters. A prompt that is the same for all texts, as keys and
values or among the input embeddings, shares a batch with any other such prompt; rows of every other kind of prompt, and
of prompts whose label words must be read, share one with rows of the same prompt only. What a row answers does not
depend on its company.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.

Shapes: B rows, S positions (a row's input vectors, its text, padding), P tokens of the longest prefix, d hidden width,
L layers, H_kv key/value heads of width d_h, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from ..prompts.artifact import SoftPrompt
from ..recipe import Template
from ..tokens.template import MARKER, encode
from .base import Base
from .buckets import buckets
from .features import features
from .forward import class_scores, padded, pooled, scores_by_own_heads, states_behind, token_types
from .label_words import must_be_read, word_scores

BATCH_ROWS = 64
PASS_COST = 64  # positions that cost what a pass costs whatever it holds; measured: 56, tiny_llama on one core
FEW_PASSES = 4096  # where padding costs nothing, or far less than starting a pass; for GPUs a guess
Text = str | tuple[str, str]  # what is asked: a text, or two for a prompt of pairs
MIXABLE = ({"embeddings"}, {"keys", "values"}, set[str]())  # what a prompt consists of, if it shares batches


@torch.no_grad()
def logits(base: Base, tokenizer: Any, requests: Sequence[tuple[SoftPrompt, Text]]) -> list[Tensor]:
    """Class logits [C] in float32 on the CPU for each prompt and text, in their order.

    Raises:
        DataError: a text has no tokens, or is one where its prompt wants two, or the other way round; or a prompt
            writes texts.
    """
    if any(prompt.writes for prompt, _ in requests):
        raise DataError("A prompt that was tuned to write has no classes to score: ask it to generate.")
    found: dict[int, Tensor] = {}
    prompts = [prompt for prompt, _ in requests]
    rows = token_ids(tokenizer, requests)
    for batch in _batches(base, prompts, rows):
        scores = _scores(base, [rows[place] for place in batch], [prompts[place] for place in batch])
        found |= {place: score.float().cpu() for place, score in zip(batch, scores, strict=True)}
    return [found[place] for place in range(len(requests))]


def _scores(base: Base, rows: Sequence[Sequence[int]], prompts: Sequence[SoftPrompt]) -> list[Tensor]:
    """Class logits [C] of each row of a batch; a prompt that has the batch for itself is not copied per row."""
    own = _by_prompt(prompts)
    if len(own) == 1:
        ids, mask = (part.to(base.device) for part in padded(rows))
        return list(scores_of_one(base, ids, mask, prompts[0]))
    read = _features(base, rows, [prompt.tensors for prompt in prompts], _pooling(prompts[0]))
    return _each_by_its_head(base, read, [prompt.head for prompt in prompts])


def _each_by_its_head(base: Base, read: Tensor, heads: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """Class logits [C] of each row of features [B, d], by a head of its own; heads of one shape work together."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, head in enumerate(heads):
        alike[tuple((name, *tensor.shape) for name, tensor in sorted(head.items()))].append(row)
    found: dict[int, Tensor] = {}
    for rows in alike.values():
        stacked = {name: torch.stack([heads[row][name] for row in rows]) for name in heads[rows[0]]}
        found |= dict(zip(rows, scores_by_own_heads(base, read[rows], stacked), strict=True))
    return [found[row] for row in range(len(heads))]


def scores_of_one(base: Base, input_ids: Tensor, mask: Tensor, prompt: SoftPrompt) -> Tensor:
    """Class logits [B, C] of rows that all follow the same prompt."""
    if "word_ids" in prompt.head:
        return word_scores(base, input_ids, mask, prompt.tensors, prompt.head)
    return class_scores(base, features(base, input_ids, mask, prompt.tensors, _pooling(prompt)), prompt.head)


def _features(
    base: Base, rows: Sequence[Sequence[int]], prompts: Sequence[Mapping[str, Tensor]], pooling: str
) -> Tensor:
    """What the heads of a batch read, [B, d], each row behind a prompt of its own."""
    if base.packs and not any("embeddings" in prompt for prompt in prompts):
        ids, mask = (part.to(base.device) for part in padded(rows))
        return features(base, ids, mask, _prefixes(base, prompts), pooling)
    return pooled(*mixed_states(base, rows, prompts), pooling)


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
    if any("embeddings" in prompt for prompt in prompts):
        embedded = base.embeddings(inputs.pop("input_ids"))
        embedded[places < starts] = torch.cat(vectors).to(embedded.dtype)
        inputs |= {"inputs_embeds": embedded, **token_types(base, ids)}
    if base.decoder:  # a decoder's text follows the positions of its own prefix
        lengths = torch.tensor([[_prefix_tokens(prompt)] for prompt in prompts], device=base.device)
        inputs["position_ids"] = (lengths + places) * mask  # padding could lie beyond the last position
    return states_behind(base, _prefixes(base, prompts), **inputs), text


def _prefixes(base: Base, prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The prefix of each row, stacked to [L, B, H_kv, P, d_h]; what shorter ones lack is not `present`.

    Nothing where no row has any.
    """
    lengths = [_prefix_tokens(prompt) for prompt in prompts]
    if (longest := max(lengths)) == 0:
        return {}
    layer, dtype = base.layers[0], base.embeddings.weight.dtype
    shape = (len(base.layers), len(prompts), layer.kv_heads, longest, layer.head_width)
    if min(lengths) == longest:
        return {name: torch.stack([prompt[name].to(dtype) for prompt in prompts], dim=1) for name in ("keys", "values")}
    keys, values = (torch.zeros(shape, dtype=dtype, device=base.device) for _ in range(2))
    for row, (prompt, tokens) in enumerate(zip(prompts, lengths, strict=True)):
        if tokens:
            keys[:, row, :, :tokens], values[:, row, :, :tokens] = prompt["keys"], prompt["values"]
    present = torch.arange(longest, device=base.device) < torch.tensor(lengths, device=base.device)[:, None]
    return {"keys": keys, "values": values, "present": present}


def _prefix_tokens(prompt: Mapping[str, Tensor]) -> int:
    return prompt["keys"].shape[-2] if "keys" in prompt else 0


def _pooling(prompt: SoftPrompt) -> str:
    pooling: str = prompt.card["head"]["pooling"]
    return pooling


def token_ids(tokenizer: Any, requests: Sequence[tuple[SoftPrompt, Text]]) -> list[list[int]]:
    """Each text in its prompt's template; texts with the same template are encoded together.

    Raises:
        DataError: a text has no tokens, or is one where its prompt wants two, or the other way round.
    """
    places: dict[Template, list[int]] = defaultdict(list)
    for place, (prompt, _) in enumerate(requests):
        places[Template(**prompt.card["template"])].append(place)
    found: dict[int, list[int]] = {}
    for template, own in places.items():
        asked = [requests[place][1] for place in own]
        firsts = [text if isinstance(text, str) else text[0] for text in asked]
        seconds = [text[1] for text in asked if not isinstance(text, str)]
        encoded = encode(tokenizer, template, firsts, seconds or None)
        found |= {place: row.input_ids for place, row in zip(own, encoded, strict=True)}
    if empty := [place for place, ids in found.items() if not set(ids) - {MARKER}]:
        raise DataError(
            f"Text {min(empty)} (counted from 0) is {requests[min(empty)][1]!r}, of which this base's tokenizer makes "
            "no token: there is nothing to answer. Ask with a text."
        )
    return [found[place] for place in range(len(requests))]


def _batches(base: Base, prompts: Sequence[SoftPrompt], rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Which rows share a pass: of prompts that can be mixed and pool alike, or of one prompt; and of like lengths."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        mixable = set(prompt.tensors) in MIXABLE and not must_be_read(base, prompt.head)
        kinds[f"mixed, {_pooling(prompt)}" if mixable else prompt.digest].append(place)
    pass_cost = PASS_COST if base.device.type == "cpu" and not base.packs else FEW_PASSES
    for places in kinds.values():
        for batch in buckets([len(rows[place]) for place in places], BATCH_ROWS, pass_cost):
            yield [places[place] for place in batch]


def _by_prompt(prompts: Sequence[SoftPrompt]) -> list[list[int]]:
    """The rows of each prompt of a batch."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt.digest].append(row)
    return list(rows.values())
