"""A base writing a text after another, steered by a soft prompt: in training by its target, else token by token.

What writes is a decoder, directly after the text, or the decoder of an encoder-decoder, whose encoder reads text and
prompt. The head of such a prompt has nothing to train; it says how the base is let speak:

    opening [O]     what the decoder of an encoder-decoder reads before it speaks; empty on a decoder
    ends [E]        the tokens that end a text

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.

Shapes: B rows, T text positions (padding on the right), U target positions, P prompt tokens, d hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from .base import Base, context_of
from .forward import hidden_states, opened, padded, read, read_once, states_behind
from .inserted import inserted

ENDLESS = 2**31  # positions, of a base that counts none
NOT_FOLLOWED = ("layer_", "pool_", "offsets_")  # tensors of prompts whose text cannot be read on with what was kept
Says = Callable[[Tensor | None], Tensor]  # from the token [B] that each row said last, logits [B, vocabulary] of next


def writes(head: Mapping[str, Tensor]) -> bool:
    """Whether a head answers with a text."""
    return "ends" in head


def may_write(base: Base, prompt: Mapping[str, Tensor]) -> bool:
    """Whether a base writes at all, and can with a prompt of these tensors.

    In a decoder the prompt must end before the text that is written: one that enters between layers, or that changes
    every position, would have to be applied to each written token too.
    """
    if base.lm_head is None:
        return False
    return base.seq2seq is not None or not any(name.startswith(NOT_FOLLOWED) for name in prompt)


def target_logits(
    base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], head: Mapping[str, Tensor],
    targets: Tensor,
) -> Tensor:  # fmt: skip
    """What the base would say in the place of each target token, given those before it: logits [N, vocabulary].

    N counts the target tokens of all rows, row by row; only their positions are multiplied with a decoder's vocabulary.

    Args:
        base: the frozen model.
        input_ids: [B, T].
        mask: [B, T], 1 on text and 0 on padding.
        prompt: as `hidden_states` takes it.
        head: as above.
        targets: [B, U] token ids, -1 after shorter ones.
    """
    said, before = targets >= 0, targets[:, :-1].clamp(min=0)
    if base.seq2seq is not None:
        states, mask = read(base, input_ids, mask, prompt)
        spoken = torch.cat([head["opening"].expand(len(targets), -1), before], dim=1)
        answer = base.seq2seq(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=mask,
            decoder_input_ids=spoken, use_cache=False,
        )  # fmt: skip
        logits: Tensor = answer.logits[:, len(head["opening"]) - 1 :][said]
        return logits
    prompt = read_once(base, opened(base, input_ids, mask, prompt))  # by the text alone, not by what is said after it
    places = mask.sum(1, keepdim=True) + torch.arange(targets.shape[1], device=mask.device)  # [B, U]: where it stands
    ids, mask = (nn.functional.pad(part, (0, targets.shape[1] - 1)) for part in (input_ids, mask))
    ids = ids.scatter(1, places[:, :-1], before)
    mask = mask.scatter(1, places[:, :-1], said[:, 1:].to(mask.dtype))
    longest = int(mask.sum(1).max())
    states = hidden_states(base, ids[:, :longest], mask[:, :longest], prompt)
    places = (places - 1).clamp(max=longest - 1)
    spoken = states.take_along_dim(places[..., None], dim=1)[said]
    return base.lm_head(spoken)  # type: ignore[no-any-return]


def written(
    base: Base, rows: Sequence[Sequence[int]], prompt: Mapping[str, Tensor], head: Mapping[str, Tensor], most: int
) -> Iterator[list[int | None]]:
    """The next token of every row, the likeliest each time; None for rows that have ended.

    Keys and values of what was read are kept, so that a step reads one token. Rows end at an end token, and where a
    decoder's context is full; all end after `most` tokens. Padding is masked, and every row has positions of its own.

    Args:
        base: as `may_write` lets pass.
        rows: B rows of token ids.
        prompt: as `hidden_states` takes it.
        head: as above.
        most: how many tokens may be written.
    """
    ids, mask = (part.to(base.device) for part in padded(rows))
    says, room = _in_decoder(base, ids, mask, prompt, head) if base.seq2seq else _after_text(base, ids, mask, prompt)
    ends, ended = set(head["ends"].tolist()), [own < 0 for own in room]
    tokens: Tensor | None = None
    for step in range(0 if all(ended) else most):
        tokens = says(tokens).argmax(1)
        listed = tokens.tolist()
        ended = [over or token in ends for over, token in zip(ended, listed, strict=True)]
        yield [None if over else token for over, token in zip(ended, listed, strict=True)]
        ended = [over or step >= own for over, own in zip(ended, room, strict=True)]
        if all(ended):
            return


def _after_text(base: Base, ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> tuple[Says, list[int]]:
    """Says of a decoder, and how many written tokens of each row its context can hold."""
    cache = DynamicCache()
    with torch.no_grad():
        prompt = read_once(base, opened(base, ids, mask, prompt))
        inputs = {"input_ids": ids}
        if "inserted" in prompt:
            _, embedded, mask = inserted(base, ids, mask, prompt["inserted"])
            inputs = {"inputs_embeds": embedded}
        elif "embeddings" in prompt:  # of a base whose layers differ in shape, so that keys and values do not stack
            vectors = prompt["embeddings"].to(base.embeddings.weight.dtype).expand(len(ids), -1, -1)
            inputs = {"inputs_embeds": torch.cat([vectors, base.embeddings(ids)], dim=1)}
            mask = torch.cat([mask.new_ones(vectors.shape[:2]), mask], dim=1)
        prefix = {name: prompt[name] for name in ("keys", "values") if name in prompt}
    tokens = prefix["keys"].shape[-2] if prefix else 0
    lengths = tokens + mask.sum(1)  # [B]: how many positions each row has so far
    context = context_of(base.backbone.config) or ENDLESS
    seen, steps = mask, 0

    @torch.no_grad()
    def says(said: Tensor | None) -> Tensor:
        nonlocal seen, steps
        more = {"past_key_values": cache, "use_cache": True}
        if said is None:
            positions = torch.arange(tokens, tokens + mask.shape[1], device=mask.device).clamp(max=context - 1)[None]
            states = states_behind(base, prefix, **inputs, attention_mask=seen, position_ids=positions, **more)
            last = states.take_along_dim((lengths - tokens - 1)[:, None, None], dim=1)[:, 0]
        else:
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            positions = (lengths + steps).clamp(max=context - 1)[:, None]  # rows beyond it have ended
            states = states_behind(
                base, prefix, input_ids=said[:, None], attention_mask=seen, position_ids=positions, **more
            )
            last, steps = states[:, -1], steps + 1
        logits: Tensor = base.lm_head(last)
        return logits

    return says, [context - length for length in lengths.tolist()]


def _in_decoder(
    base: Base, ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], head: Mapping[str, Tensor]
) -> tuple[Says, list[int]]:
    """The same of an encoder-decoder, whose decoder reads the opening first."""
    with torch.no_grad():
        states, mask = read(base, ids, mask, prompt)
    encoded, cache = BaseModelOutput(last_hidden_state=states), EncoderDecoderCache(DynamicCache(), DynamicCache())
    opening: Tensor = head["opening"].expand(len(ids), -1)

    @torch.no_grad()
    def says(said: Tensor | None) -> Tensor:
        answer = base.seq2seq(
            encoder_outputs=encoded, attention_mask=mask, past_key_values=cache, use_cache=True,
            decoder_input_ids=opening if said is None else said[:, None],
        )  # fmt: skip
        logits: Tensor = answer.logits[:, -1]
        return logits

    context = context_of(base.seq2seq.config) or ENDLESS
    return says, [context - opening.shape[1]] * len(ids)
