"""Where a prompt's tensors start. The choice moves results by points: a recipe names it, an artifact records it."""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.inference.forward import Base
from pipelines.prompts.injection import Shapes


def random(base: Base, shapes: Shapes, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Gaussian tensors of standard deviation `scale`."""
    return {name: torch.randn(shape, generator=generator) * scale for name, shape in shapes.items()}


def vocabulary(base: Base, shapes: Shapes, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Embeddings of different tokens drawn from the base's vocabulary [P, d] (Lester et al. 2021, section 3.2)."""
    table = base.embeddings.weight
    drawn = torch.randperm(len(table), generator=generator)[: shapes["embeddings"][0]]
    return {"embeddings": table[drawn].detach().cpu().clone()}
