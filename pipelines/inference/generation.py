"""A decoder writing on after a text, steered by a soft prompt, piece by piece.

Shapes: T tokens read in a step, P prompt tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from pipelines.errors import BaseModelError
from pipelines.inference.base import Base, context_of
from pipelines.inference.forward import states_behind
from pipelines.inference.mixed import Text, token_ids
from pipelines.prompts.artifact import SoftPrompt

UNFINISHED = "�"  # what a tokenizer shows of a character whose bytes have not all come yet


def written_on(base: Base, tokenizer: Any, prompt: SoftPrompt, text: Text, max_new_tokens: int) -> Iterator[str]:
    """Pieces of what the base writes after a text in the prompt's template, the likeliest token each time.

    It ends at an end-of-text token, after `max_new_tokens`, or where the base's context is full.

    Raises:
        BaseModelError: an encoder, which does not write, or a decoder whose layers do not stack.
        DataError: the text has no tokens, or is one where the prompt wants two, or the other way round.
    """
    if not base.decoder or set(prompt.tensors) - {"keys", "values"}:
        raise BaseModelError(
            f"This base ({base.backbone.config.model_type!r}) cannot write on after a text with this prompt: it takes "
            "a decoder, whose prompt is read as keys and values. Ask for its labels instead."
        )
    (ids,) = token_ids(tokenizer, [(prompt, text)])
    return _pieces(tokenizer, ids, _tokens(base, tokenizer, prompt, ids, max_new_tokens))


def _tokens(base: Base, tokenizer: Any, prompt: SoftPrompt, ids: list[int], count: int) -> Iterator[int]:
    """The token after everything so far, again and again; keys and values of what was read are kept."""
    cache, position = DynamicCache(), prompt.tensors["keys"].shape[-2] if prompt.tensors else 0
    context = context_of(base.backbone.config)
    ends = _ends(base, tokenizer)
    for _ in range(count):
        if context is not None and position + len(ids) > context:
            return
        token = _step(base, prompt, ids, position, cache)
        if token in ends:
            return
        yield token
        position, ids = position + len(ids), [token]


@torch.no_grad()
def _step(base: Base, prompt: SoftPrompt, ids: Sequence[int], position: int, cache: DynamicCache) -> int:
    """The likeliest token after T more tokens, the first of them at `position`."""
    read = torch.tensor([ids], device=base.device)
    positions = torch.arange(position, position + len(ids), device=base.device)[None]
    states = states_behind(
        base, prompt.tensors, input_ids=read, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return int(base.lm_head(states[0, -1]).argmax())


def _ends(base: Base, tokenizer: Any) -> set[int]:
    """The tokens that end a text: the config's, one or several, and the tokenizer's."""
    named = base.backbone.config.eos_token_id
    ends = set(named) if isinstance(named, list) else {named}
    return ends | {tokenizer.eos_token_id}


def _pieces(tokenizer: Any, before: Sequence[int], tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to the text; nothing while a character is unfinished."""
    ids = list(before)
    shown = text = _decoded(tokenizer, ids)
    for token in tokens:
        ids.append(token)
        text = _decoded(tokenizer, ids)
        if not text.endswith(UNFINISHED):
            yield text[len(shown) :]
            shown = text
    if text != shown:
        yield text[len(shown) :]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
