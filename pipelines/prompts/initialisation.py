"""Where a prompt's tensors start. The choice moves results by points: a recipe names it, an artifact records it."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.inference.forward import Base, keys_and_values
from pipelines.prompts.injection import Shapes


def random(base: Base, shapes: Shapes, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Gaussian tensors of standard deviation `scale`."""
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in shapes.items()}


def vocabulary(base: Base, shapes: Shapes, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Embeddings of different tokens drawn from the base's vocabulary [P, d] (Lester et al. 2021, section 3.2)."""
    table = base.embeddings.weight
    return {"embeddings": table[_drawn(base, shapes["embeddings"][0], generator)].detach().cpu().clone()}


def vocabulary_keys(base: Base, shapes: Shapes, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The keys and values [L, H_kv, P, d_h] that the base itself gives to a text of P tokens drawn from its vocabulary.

    A prompt that starts among real keys is attended to from the first step on (Li and Liang 2021, section 7.4).
    """
    drawn = _drawn(base, shapes["keys"][2], generator)
    keys, values = keys_and_values(base, drawn[None])
    return {"keys": keys.clone(), "values": values.clone()}


def _drawn(base: Base, tokens: int, generator: torch.Generator) -> Tensor:
    """Different token ids [P], drawn from the whole vocabulary; they repeat only where P is larger than that."""
    vocabulary = base.embeddings.weight.shape[0]
    rounds = -(-tokens // vocabulary)
    return torch.cat([torch.randperm(vocabulary, generator=generator) for _ in range(rounds)])[:tokens]
