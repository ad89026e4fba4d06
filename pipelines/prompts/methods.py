"""The methods by name: each is a parameterisation x an injection, with the starts that make sense for it.

prompt-tuning (Lester, Al-Rfou, Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021):
    a table E [P, d] stands before the token embeddings X [T, d]; the base reads [E; X]. Trains P * d numbers.

p-tuning-v2 (Liu et al., "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and
Tasks", ACL 2022):
    in each layer l, attention reads [K_l; K(X)] and [V_l; V(X)] where K_l, V_l [H_kv, P, d_h] are trained directly.
    Trains 2 * L * P * H_kv * d_h numbers.

Both train their head with them: a linear one over the pooled hidden states, or none where label words are scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.errors import RecipeError, listed
from pipelines.inference.forward import Base
from pipelines.prompts import initialisation
from pipelines.prompts.injection import Shapes, input_shapes, key_value_shapes
from pipelines.prompts.parameterisation import Direct, Dropout
from pipelines.recipe import Prompt


@dataclass(frozen=True)
class Preset:
    """A named method: what is trained, where it enters, and how it may start."""

    parameterisation: Callable[[dict[str, Tensor]], nn.Module]
    shapes: Callable[[Base, int], Shapes]
    inits: dict[str, Callable[[Base, Shapes, float, torch.Generator], dict[str, Tensor]]]
    described: dict[str, str]  # what an artifact says of it


PRESETS = {
    "prompt-tuning": Preset(
        Direct,
        input_shapes,
        {"random": initialisation.random, "vocabulary": initialisation.vocabulary},
        {"parameterisation": "direct", "injection": "input", "place": "before the text"},
    ),
    "p-tuning-v2": Preset(
        Direct,
        key_value_shapes,
        {"random": initialisation.random, "vocabulary": initialisation.vocabulary_keys},
        {"parameterisation": "direct", "injection": "key-value", "place": "before the text, in every layer"},
    ),
}


def new_prompt(base: Base, settings: Prompt, seed: int) -> nn.Module:
    """A module whose forward gives the tensors to inject, at its seeded start.

    Raises:
        RecipeError: a start that the method has not, or more tokens than the base's context holds.
    """
    preset = PRESETS[settings.method]
    if settings.init not in preset.inits:
        raise RecipeError(
            f"{settings.method} cannot start from init = {settings.init!r}; it can from {listed(preset.inits)}."
        )
    context = getattr(base.backbone.config, "max_position_embeddings", None)
    if context is not None and settings.tokens >= context:
        raise RecipeError(
            f"prompt.tokens = {settings.tokens} leaves no room for text: the base reads {context} positions."
        )
    generator = torch.Generator().manual_seed(seed)
    start = preset.inits[settings.init](base, preset.shapes(base, settings.tokens), settings.init_scale, generator)
    prompt = preset.parameterisation(start)
    return Dropout(prompt, settings.dropout, seed) if settings.dropout else prompt
