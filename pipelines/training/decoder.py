"""A Llama-like decoder behind its prompts, written out for training on a CPU: what a head reads, with as little work.

The pass of `inference/forward.py` serves every architecture through its own code. Here a prompt's positions and those
of all texts are one row of packed positions, so that each matrix is multiplied once; the text has no gradient below the
first attention; the last layer asks for the last position of each text alone. `written_out` takes a base only if this
gives what the base itself gives.

Shapes: K prompts of P tokens, B rows, N text positions of all rows, d hidden width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.inference.attention import SHORT
from pipelines.inference.base import Base
from pipelines.inference.features import features
from pipelines.inference.label_words import must_be_read
from pipelines.inference.packing import pack, put, take
from pipelines.training.kernels import Group, Heads, Stretch, attended, gated, projected
from pipelines.training.tuned import Tuned

TAKEN = ({"embeddings"}, {"keys", "values"})  # prompts before the text, the same for all texts
AGREES = 1e-3  # of the largest number of a feature: far above rounding, far below another architecture
PARTS = {
    "block": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "attention": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}


class Decoder(nn.Module):
    """A tuned base whose prompt stands before the text; `forward` gives what that of `Tuned` gives."""

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.tuned = tuned

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, C] of token ids and their mask, each [B, T]."""
        assert self.tuned.prompt is not None
        prompt = self.tuned.prompt()
        if is_short(mask, prompt):
            return self.tuned.scores(last_states(self.tuned.base, [(input_ids, mask)], prompt))
        return self.tuned(input_ids, mask)  # type: ignore[no-any-return]


def is_short(mask: Tensor, prompt: Mapping[str, Tensor]) -> bool:
    """Whether plain matrices are the best attention for rows [B, T] and their prompt, as they are here."""
    return mask.shape[1] + _tokens(prompt) <= SHORT


def written_out(tuned: Tuned) -> Decoder | None:
    """The same training with less work; None where this base or prompt is not one that is written out here."""
    base = tuned.base
    if tuned.prompt is None or must_be_read(base, tuned.head_tensors()):
        return None
    tuned.eval()  # dropout must not draw yet
    with torch.no_grad():
        prompt = tuned.prompt()
    return Decoder(tuned) if set(prompt) in TAKEN and next(iter(prompt.values())).dim() < 5 and fits(base) else None


@torch.no_grad()
def fits(base: Base) -> bool:
    """Whether a base is built as it is written out here, and gives the same."""
    if not base.packs or base.device.type != "cpu" or not _is_built_alike(base.backbone):
        return False
    shape = len(base.layers), base.layers[0].kv_heads, 2, base.layers[0].head_width
    keys = torch.linspace(-1, 1, math.prod(shape), dtype=base.embeddings.weight.dtype).view(shape)
    prompt = {"keys": keys, "values": keys.flip(0)}
    ids, mask = torch.arange(10).view(2, 5) % len(base.embeddings.weight), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    here, there = last_states(base, [(ids, mask)], prompt), features(base, ids, mask, prompt, "last")
    return bool((here - there).abs().max() <= AGREES * there.abs().max())


def _is_built_alike(backbone: Any) -> bool:
    """Whether a decoder's layers consist of exactly the parts that are written out, without extra biases."""
    turning = getattr(backbone, "rotary_emb", None)
    if getattr(turning, "rope_type", None) in (None, "dynamic", "longrope"):  # the last two look at the longest text
        return False
    for block in getattr(backbone, "layers", ()):
        parts = dict(block.named_children())
        if "forward" in vars(block):  # it runs another than its own, as for gradient checkpointing
            return False
        if parts.keys() != PARTS["block"] or not hasattr(parts["input_layernorm"], "variance_epsilon"):
            return False
        attention, mlp = (dict(parts[name].named_children()) for name in ("self_attn", "mlp"))
        if attention.keys() != PARTS["attention"] or mlp.keys() != PARTS["mlp"]:
            return False
        linear = [*attention.values(), *(mlp[name] for name in PARTS["mlp"] - {"act_fn"})]
        plain = [mlp["gate_proj"], mlp["up_proj"], mlp["down_proj"], attention["o_proj"]]
        if any(type(each) is not nn.Linear for each in linear) or any(each.bias is not None for each in plain):
            return False
    return hasattr(backbone, "layers") and hasattr(getattr(backbone, "norm", None), "variance_epsilon")


@dataclass(frozen=True)
class Plan:
    """The rows of K prompts, packed: each prompt's own one after another, sorted by length."""

    ids: Tensor  # [N]
    columns: Tensor  # [N], the place of each in its own row
    last: Tensor  # [B], the rows' last positions among N, the rows sorted
    order: Tensor  # [B], the numbers of the sorted rows
    groups: list[Group]
    last_groups: list[Group]  # the same, the last position of each row asking


def planned(parts: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Plan:
    """How the rows of several prompts are packed, of which token ids and mask are given, each [B_k, T]."""
    ids, columns, last, order = [], [], [], []
    groups: list[Group] = []
    last_groups: list[Group] = []
    start = rows = 0
    for number, (input_ids, mask) in enumerate(parts):
        packing = pack(mask)
        ids.append(input_ids.flatten().index_select(0, packing.places))
        columns.append(packing.columns)
        last.append(packing.last[packing.order] + start)
        order.append(packing.order + rows)
        for group in packing.groups:
            (count, longest), each = group.shape, torch.arange(group.shape[0])
            own = Stretch(_moved(group.stretch, start), _filled(group.places, count * longest), group.places)
            groups.append(Group(count, number, own, own, _causal(longest, dtype)))
            ends = packing.columns[packing.last[packing.order[group.rows]]]
            beyond = torch.arange(longest) > ends[:, None, None, None]
            seen = torch.zeros(beyond.shape, dtype=dtype).masked_fill_(beyond, -torch.inf)
            last_groups.append(Group(count, number, Stretch(_moved(group.rows, rows), each, each), own, seen))
        start, rows = start + len(packing.places), rows + len(mask)
    return Plan(torch.cat(ids), torch.cat(columns), torch.cat(last), torch.cat(order), groups, last_groups)


def last_states(base: Base, parts: Sequence[tuple[Tensor, Tensor]], prompt: Mapping[str, Tensor]) -> Tensor:
    """What a head reads of each row's last text position, [B, d], as `features` gives it.

    Args:
        base: one that `fits`.
        parts: token ids and mask, [B_k, T] each, of the rows of each of K prompts.
        prompt: `embeddings` [P, d], or [K, P, d] of several; or `keys` and `values` [L, H_kv, P, d_h], or [L, K, ...].
    """
    dtype, count, tokens = base.embeddings.weight.dtype, len(parts), _tokens(prompt)
    plan = planned(parts, dtype)
    text, positions = base.embeddings(plan.ids), plan.columns + tokens
    vectors = text[:0]
    if "embeddings" in prompt:
        vectors = prompt["embeddings"].to(dtype).reshape(-1, base.hidden_width)
        positions = torch.cat([torch.arange(tokens).repeat(count), positions])
    turns = base.backbone.rotary_emb(text[None], positions[None])
    cosines, sines = (each[0, :, : each.shape[2] // 2] for each in turns)
    given = [prompt[name].to(dtype).view(len(base.layers), count, *prompt[name].shape[-3:])
             for name in ("keys", "values") if name in prompt]  # fmt: skip
    own, before = len(vectors), _side_by_side(count, len(vectors), dtype)
    states = torch.cat([vectors, text])
    for number, block in enumerate(base.backbone.layers):
        attention, norm, heads = block.self_attn, block.input_layernorm, _heads(base, number)
        at_end = number == len(base.layers) - 1
        turned, kept = [attention.k_proj] if at_end else [attention.k_proj, attention.q_proj], [attention.v_proj]
        # Below the first attention nothing of a text depends on a prompt, so that its gradient ends there.
        inputs = [(vectors, slice(own)), (text, slice(own, None))] if number == 0 else [(states, slice(None))]
        made = [projected(each, (cosines[at], sines[at]), norm, turned, kept) for each, at in inputs]
        if len(made) == 1:
            made = list(zip(*(each.split([own, len(text)]) for each in made[0]), strict=True))
        (own_keys, *own_queries, own_values), (keys, *queries, values) = made
        shared = [each[number] for each in given] if given else [
            each.view(count, tokens, heads.kv, heads.width).transpose(1, 2) for each in (own_keys, own_values)
        ]  # fmt: skip
        if at_end:
            at = plan.last + own
            states = take(states, at)
            queries = projected(states, (cosines[at], sines[at]), norm, [attention.q_proj], [])
        taken = attended(
            queries[0], keys, values, (shared[0], shared[1]), plan.last_groups if at_end else plan.groups, heads
        )
        if own and not at_end:
            taken = torch.cat([attended(own_queries[0], own_keys, own_values, None, before, heads), taken])
        states = gated(torch.addmm(states, taken, attention.o_proj.weight.T), block.post_attention_layernorm, block.mlp)
    norm = base.backbone.norm
    states = nn.functional.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
    return put(states, plan.order, len(plan.order))


@torch.no_grad()
def text_read(base: Base, input_ids: Tensor) -> Tensor:
    """What `keys_and_values` makes of one text [1, T] on a base that fits: [2, L, H_kv, T, d_h]."""
    states = base.embeddings(input_ids[0])
    turns = base.backbone.rotary_emb(states[None], torch.arange(len(states))[None])
    cosines, sines = (each[0, :, : each.shape[2] // 2] for each in turns)
    read: list[Tensor] = []
    for number, block in enumerate(base.backbone.layers):
        attention, norm, heads = block.self_attn, block.input_layernorm, _heads(base, number)
        turned, kept = [attention.q_proj, attention.k_proj], [attention.v_proj]
        queries, *made = (
            each.unflatten(1, (-1, heads.width)).transpose(0, 1)
            for each in projected(states, (cosines, sines), norm, turned, kept)
        )
        read.append(torch.stack(made))
        if number < len(base.layers) - 1:  # the last layer's states are of no use
            keys, values = made
            taken = nn.functional.scaled_dot_product_attention(
                queries[None], keys[None], values[None], is_causal=True, scale=heads.scaling, enable_gqa=True
            )[0]
            states = torch.addmm(states, taken.transpose(0, 1).flatten(1), attention.o_proj.weight.T)
            states = gated(states, block.post_attention_layernorm, block.mlp)
    return torch.stack(read, 1)


def _heads(base: Base, layer: int) -> Heads:
    found = base.layers[layer]
    attention: Any = found.module
    queries = attention.q_proj.weight.shape[0] // found.head_width
    return Heads(found.kv_heads, queries // found.kv_heads, found.head_width, attention.scaling)


def _tokens(prompt: Mapping[str, Tensor]) -> int:
    return next(iter(prompt.values())).shape[-2]


def _causal(positions: int, dtype: torch.dtype) -> Tensor:
    return torch.full((positions, positions), -torch.inf, dtype=dtype).triu_(1)


def _side_by_side(rows: int, positions: int, dtype: torch.dtype) -> list[Group]:
    """Rows of one length, one after another; none where there are no positions."""
    each = torch.arange(positions)
    own = Stretch(slice(positions), each, each)
    return [Group(rows, 0, own, own, _causal(positions // rows, dtype))] if positions else []


def _filled(places: Tensor, size: int) -> Tensor:
    """Which of n positions each of `size` places takes, [size]: its own, or the first."""
    return put(torch.arange(len(places)), places, size)


def _moved(stretch: slice, by: int) -> slice:
    return slice(stretch.start + by, stretch.stop + by)
