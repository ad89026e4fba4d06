"""Where what is trained starts. The choice moves results by points: a recipe names it, an artifact records it.

random      Gaussian numbers of standard deviation `init_scale`
vocabulary  tokens drawn from the vocabulary (Lester et al. 2021, section 3.2)
labels      the label words, one after the other (Lester et al. 2021, section 3.2)
text        the recipe's `init_text`
prior       vectors drawn from a Gaussian fitted to the vocabulary's embeddings (Sedov, Karanam and Kadamba, "Exploring
            Embedding Priors in Prompt-Tuning for Improved Interpretability and Control", 2024)
inputs      means of the training texts' embeddings: their tokens, one text after the other, in P parts of one size

Where a table [P, d] is trained, tokens become their embeddings; where keys and values are, those that the base itself
gives to a text of these tokens. A text of fewer than P tokens is repeated, a longer one is cut after P. There is no
prior over keys and values, and no mean: what is usual for them depends on the layer, the head, the position and the
text, and drawn tokens have it right in all four. An earlier prompt is taken as it is: see `training/warm.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.errors import RecipeError
from pipelines.inference.base import Base
from pipelines.inference.forward import keys_and_values
from pipelines.prompts.injection import Shapes
from pipelines.recipe import Prompt

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """What a start is made from."""

    base: Base
    settings: Prompt
    shapes: Shapes  # of the tensors that start
    text: Sequence[int]  # token ids of the labels, of init_text or of the training texts
    generator: torch.Generator


def start_ids(tokenizer: Any, settings: Prompt, words: Sequence[str]) -> list[int]:
    """The token ids of the text that a prompt starts from: its own, or the label words; none for the other starts.

    Label words are read as they stand after a space, like those that a verbaliser scores.

    Raises:
        RecipeError: the text has no tokens, or none but the unknown one.
    """
    if settings.init not in ("labels", "text"):
        return []
    written = settings.init_text or "" if settings.init == "text" else " " + " ".join(words)
    ids: list[int] = tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]
    if not written.strip() or set(ids) <= {tokenizer.unk_token_id}:
        raise RecipeError(
            f"prompt.init = {settings.init!r} cannot start from {written!r}: this base has no tokens for it. "
            "Write words that the base knows into prompt.init_text, or choose another start."
        )
    return ids


# Tables of vectors.


def random(origin: Origin) -> Tensors:
    """Gaussian tensors of standard deviation `init_scale`, whatever their shapes."""
    scale = origin.settings.init_scale
    return {name: torch.randn(shape, generator=origin.generator) * scale for name, shape in origin.shapes.items()}


def vocabulary(origin: Origin) -> Tensors:
    """Embeddings [P, d] of different tokens drawn from the base's vocabulary."""
    return {"embeddings": _embedded(origin.base, _drawn(origin, origin.settings.tokens))}


def text(origin: Origin) -> Tensors:
    """Embeddings [P, d] of a text's tokens."""
    return {"embeddings": _embedded(origin.base, _filled(origin))}


def prior(origin: Origin) -> Tensors:
    """Vectors [P, d] drawn from the Gaussian that has the mean and the covariance of all embeddings E [V, d].

    With z from N(0, 1)^V, the vector mean + (E - mean)^T z / sqrt(V - 1) has exactly that covariance, so that none of
    its d x d numbers is ever written down.
    """
    table = origin.base.embeddings.weight.detach()
    draws = torch.randn(origin.settings.tokens, len(table), generator=origin.generator).to(table)
    mean = table.mean(0)
    deviations = (draws @ table - draws.sum(1, keepdim=True) * mean) / (len(table) - 1) ** 0.5
    return {"embeddings": (mean + deviations).cpu()}


def inputs(origin: Origin) -> Tensors:
    """Vectors [P, d], each the mean embedding of a part of the text; a text of fewer than P tokens is repeated."""
    ids = _filled(origin) if len(origin.text) < origin.settings.tokens else torch.tensor(origin.text)
    parts, table = ids.tensor_split(origin.settings.tokens), origin.base.embeddings.weight.detach()
    shares = torch.stack([part.bincount(minlength=len(table)) / len(part) for part in parts])  # [P, vocabulary]
    return {"embeddings": (shares.to(table) @ table).cpu()}


# Keys and values.


def vocabulary_keys(origin: Origin) -> Tensors:
    """The keys and values [L, H_kv, P, d_h] that the base itself gives to a text of P tokens drawn from its vocabulary.

    A prompt that starts among real keys is attended to from the first step on (Li and Liang 2021, section 7.4).
    """
    return _keyed(origin.base, _drawn(origin, origin.settings.tokens))


def text_keys(origin: Origin) -> Tensors:
    """The keys and values [L, H_kv, P, d_h] that the base itself gives to a text."""
    return _keyed(origin.base, _filled(origin))


# Superpositions of token embeddings.


def superposition(origin: Origin) -> Tensors:
    """A basis [k, d] of drawn tokens' embeddings, and Gaussian weights [P, k] of standard deviation `init_scale`."""
    size = (origin.settings.tokens, origin.settings.basis)
    basis = _embedded(origin.base, _drawn(origin, origin.settings.basis))
    return {"basis": basis, "weights": torch.randn(size, generator=origin.generator) * origin.settings.init_scale}


def superposition_vocabulary(origin: Origin) -> Tensors:
    """A basis [k, d] of drawn tokens' embeddings, and weights [P, k] that give one of them to each vector in turn."""
    basis = _embedded(origin.base, _drawn(origin, origin.settings.basis))
    return {"basis": basis, "weights": torch.eye(len(basis))[torch.arange(origin.settings.tokens) % len(basis)]}


def _embedded(base: Base, ids: Tensor) -> Tensor:
    vectors: Tensor = base.embeddings.weight[ids.to(base.device)]
    return vectors.detach().cpu().clone()


def _keyed(base: Base, ids: Tensor) -> Tensors:
    keys, values = keys_and_values(base, ids[None])
    return {"keys": keys.clone(), "values": values.clone()}


def _filled(origin: Origin) -> Tensor:
    """The text's ids, over and over, up to P of them."""
    return torch.tensor([origin.text[place % len(origin.text)] for place in range(origin.settings.tokens)])


def _drawn(origin: Origin, number: int) -> Tensor:
    """Different token ids, drawn from the whole vocabulary; they repeat only where more are asked for than it has."""
    vocabulary = len(origin.base.embeddings.weight)
    rounds = -(-number // vocabulary)
    return torch.cat([torch.randperm(vocabulary, generator=origin.generator) for _ in range(rounds)])[:number]
