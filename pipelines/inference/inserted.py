"""A prompt in the midst of a text or after it: each row of token ids has MARKER once, where the prompt stands.

In rows of token ids the marker is one position, among the states of a base the prompt has P of them. Whoever asks for
the states of a row's own positions finds that of the prompt's last vector at the marker: where the prompt ends a
decoder's row, the head reads that.

Shapes: B rows, T positions of a row, its marker among them, P prompt tokens, d hidden width; S = T - 1 + P.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..tokens.template import MARKER
from .base import Base


def inserted(base: Base, input_ids: Tensor, mask: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [B, S] with P markers each, input embeddings [B, S, d] with the prompt in their place, and their mask.

    Args:
        base: the frozen model.
        input_ids: [B, T], each row with one marker, padded on the right.
        mask: [B, T], 1 on text and marker, 0 on padding.
        vectors: the prompt, [P, d].
    """
    at, more = _marker(input_ids), len(vectors) - 1
    places = torch.arange(input_ids.shape[1] + more, device=mask.device) - at  # of the prompt's first vector: 0
    sources = at + torch.where(places < 0, places, (places - more).clamp(min=0))
    ids, mask = input_ids.take_along_dim(sources, 1), mask.take_along_dim(sources, 1)
    embedded = base.embeddings(ids.clamp(min=0))
    own = nn.functional.embedding(places.clamp(0, more), vectors.to(embedded.dtype))
    return ids, torch.where((ids == MARKER)[..., None], own, embedded), mask


def own_states(states: Tensor, input_ids: Tensor) -> Tensor:
    """The states [B, T, d] of a row's own positions among those [B, S, d] of text and prompt."""
    more = states.shape[1] - input_ids.shape[1]
    places = torch.arange(input_ids.shape[1], device=states.device)
    return states.take_along_dim((places + more * (places >= _marker(input_ids)))[..., None], 1)


def _marker(input_ids: Tensor) -> Tensor:
    """Where each row has its marker, [B, 1]."""
    return (input_ids == MARKER).long().argmax(1, keepdim=True)
