"""The methods by name: each is a parameterisation x an injection, with the starts that make sense for it.

P prompt tokens, T text positions, d hidden width, L layers, H_kv key/value heads of width d_h; the recipe's `hidden` m,
`bottleneck` b, `basis` k, `layer` M, `rank` r and `positions` S.

prompt-tuning (Lester, Al-Rfou, Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021):
    a table E [P, d] stands before the token embeddings X [T, d]; the base reads [E; X]. Trains P * d numbers.

p-tuning-v2 (Liu et al., "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and
Tasks", ACL 2022):
    in each layer l, attention reads [K_l; K(X)] and [V_l; V(X)] where K_l, V_l [H_kv, P, d_h] are trained directly.
    Trains 2 * L * P * H_kv * d_h numbers.

p-tuning (Liu et al., "GPT Understands, Too", AI Open 2023, first 2021):
    a table [P, d] runs through a bidirectional LSTM of two layers and an MLP, or through the MLP alone; what comes out,
    [P, d], stands before the text. With n = d, or with the LSTM n = 2h, h = m / 2 rounded up, trains
    P * d + (n + 1) * m + (m + 1) * d numbers, and the LSTM's 2 * (4h * (d + h + 2) + 4h * (2h + h + 2)).

prefix-tuning (Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021):
    a table [P, d] runs through Linear(d, m), tanh, Linear(m, 2 * L * H_kv * d_h); each row becomes one token's keys and
    values in every layer. Trains P * d + (d + 1) * m + (m + 1) * 2 * L * H_kv * d_h numbers.

residual (Razdaibiedina et al., "Residual Prompt Tuning", Findings of ACL 2023):
    e_i + LayerNorm(W_up ReLU(W_down e_i)) for each row of a table E [P, d] stands before the text.
    Trains P * d + 2 * d * b + 2 * d numbers.

superpos (SadraeiJavaeri et al., "SuperPos-Prompt", ENLSP workshop at NeurIPS 2024):
    p_i = (F + D_i)^T w_i stands before the text: sums of k frozen token embeddings F [k, d] with weights w_i and
    changes D_i. Trains P * k + P * k * d numbers.

What the encoders of the last four give is constant once they are trained: an artifact holds that, P * d numbers or
2 * L * P * H_kv * d_h, and not the encoder.

late (Liu et al., "Late Prompt Tuning: A Late Prompt Could Be Better Than Many Prompts", Findings of EMNLP 2022, without
their generator):
    the first M layers read the text alone and make H [T, d] of it; the others read [E; H], E [P, d] a table.
    Trains P * d numbers, and H never changes.

lopa (Jain et al., "Prompt Tuning Strikes Back: Customizing Foundation Models with Low-Rank Prompt Adaptation",
NeurIPS 2024):
    E * sigmoid(U V^T) stands before the text, element by element: a table E [P, d] and a gate of rank r for each text.
    U [P, r] and V [d, r] are two networks Linear(d, m), tanh, Linear(m, P * r or d * r) over what the base itself makes
    of the text, pooled as for a linear head. Trains P * d + 2 * (d + 1) * m + (m + 1) * (P + d) * r numbers.

dept (Shi and Lipani, "DePT: Decomposed Prompt Tuning for Parameter-Efficient Fine-tuning", ICLR 2024):
    a short table E [P, d] stands before the text, and row t of A B is added to the embedding of its token t, A [S, r],
    B [r, d], at a rate of its own. Trains P * d + (S + d) * r numbers.

iapt (Zhu et al., "IAPT: Instance-Aware Prompt Tuning for Large Language Models", ACL 2024, with GELU for an activation
that is learnt, and no sharing between layers):
    in each layer a prompt [P, d] stands before the text's hidden states H [T, d], made of them: with queries Q [P, r]
    and D = H W_down [T, r] it is GELU(softmax(Q D^T / sqrt(r)) D) W_up. What a layer makes of it, the next one does not
    read. Trains L * (P * r + (d + 1) * r + (r + 1) * d) numbers.

The last three answer to each text, or change it: nothing of them folds, and an artifact holds all that they train.

All train their head with them: a linear one over the pooled hidden states, or none where label words are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipelines.errors import RecipeError, listed
from pipelines.inference.base import Base, context_of
from pipelines.prompts import initialisation
from pipelines.prompts.initialisation import Origin, Tensors
from pipelines.prompts.injection import Shapes, at_layer, input_shapes, key_value_shapes, separate_layers
from pipelines.prompts.parameterisation import (
    Direct,
    Dropout,
    Encoded,
    Prefix,
    Residual,
    Superposition,
    gate,
    generator,
    offsets,
)
from pipelines.recipe import Prompt


@dataclass(frozen=True)
class Preset:
    """A named method: what is trained, where it starts, and where it enters."""

    parameterisation: Callable[[Base, Prompt, Tensors], nn.Module]  # from the start
    shapes: Callable[[Base, Prompt], Shapes]  # of what starts at random
    inits: Mapping[str, Callable[[Origin], Tensors]]
    described: dict[str, str]  # what an artifact says of it
    needs: Callable[[Base], object] = lambda base: None  # raises RecipeError where a base has not what it enters at


def _table(base: Base, settings: Prompt) -> Shapes:
    return input_shapes(base, settings.tokens)


def _keys_values(base: Base, settings: Prompt) -> Shapes:
    return key_value_shapes(base, settings.tokens)


def _queries(base: Base, settings: Prompt) -> Shapes:
    return {"pool_queries": (separate_layers(base), settings.tokens, settings.rank)}


def _stacked_layers(base: Base) -> Shapes:
    return key_value_shapes(base, 1)


TABLE_INITS = {
    "random": initialisation.random,
    "vocabulary": initialisation.vocabulary,
    "labels": initialisation.text,
    "text": initialisation.text,
    "prior": initialisation.prior,
    "inputs": initialisation.inputs,
}
KEY_VALUE_INITS = {
    "random": initialisation.random,
    "vocabulary": initialisation.vocabulary_keys,
    "labels": initialisation.text_keys,
    "text": initialisation.text_keys,
}
# No text: a token that comes twice would make two equal rows, hence keys and values with equal gradients for ever.
PREFIX_INITS = {name: TABLE_INITS[name] for name in ("random", "vocabulary", "prior", "inputs")}
SUPERPOSITION_INITS = {
    "random": initialisation.superposition,
    "vocabulary": initialisation.superposition_vocabulary,
}
INPUT = {"injection": "input", "place": "before the text"}
KEY_VALUE = {"injection": "key-value", "place": "before the text, in every layer"}

PRESETS = {
    "prompt-tuning": Preset(
        lambda base, settings, start: Direct(start),
        _table,
        TABLE_INITS,
        {"parameterisation": "direct", **INPUT},
    ),
    "p-tuning": Preset(
        lambda base, settings, start: Encoded(start["embeddings"], settings.hidden, settings.encoder == "lstm"),
        _table,
        TABLE_INITS,
        {"parameterisation": "encoder", **INPUT},
    ),
    "p-tuning-v2": Preset(
        lambda base, settings, start: Direct(start),
        _keys_values,
        KEY_VALUE_INITS,
        {"parameterisation": "direct", **KEY_VALUE},
        needs=_stacked_layers,
    ),
    "prefix-tuning": Preset(
        lambda base, settings, start: Prefix(
            start["embeddings"], settings.hidden, key_value_shapes(base, settings.tokens)["keys"]
        ),
        _table,
        PREFIX_INITS,
        {"parameterisation": "encoder", **KEY_VALUE},
        needs=_stacked_layers,
    ),
    "residual": Preset(
        lambda base, settings, start: Residual(start["embeddings"], settings.bottleneck),
        _table,
        TABLE_INITS,
        {"parameterisation": "residual", **INPUT},
    ),
    "superpos": Preset(
        lambda base, settings, start: Superposition(**start),
        _table,
        SUPERPOSITION_INITS,
        {"parameterisation": "superposition", **INPUT},
    ),
    "late": Preset(
        lambda base, settings, start: Direct({at_layer(base, settings.layer): start["embeddings"]}),
        _table,
        TABLE_INITS,
        {"parameterisation": "direct", "injection": "layer", "place": "before the text, from one layer on"},
        needs=separate_layers,
    ),
    "lopa": Preset(
        lambda base, settings, start: Direct(
            start | gate(settings.tokens, base.hidden_width, settings.hidden, settings.rank)
        ),
        _table,
        TABLE_INITS,
        {"parameterisation": "instance gate", "injection": "input", "place": "before the text, another for each"},
    ),
    "dept": Preset(
        lambda base, settings, start: Direct(start | offsets(settings.positions, settings.rank, base.hidden_width)),
        _table,
        TABLE_INITS,
        {"parameterisation": "decomposed", "injection": "input", "place": "before the text, and onto its embeddings"},
    ),
    "iapt": Preset(
        lambda base, settings, start: Direct(start | generator(len(base.layers), base.hidden_width, settings.rank)),
        _queries,
        {"random": initialisation.random},
        {"parameterisation": "generator", "injection": "layer", "place": "before the text, another in every layer"},
        needs=separate_layers,
    ),
}


def why_not(base: Base, method: str) -> str:
    """Why a method cannot be had on a base, whatever its settings; empty where it can."""
    try:
        PRESETS[method].needs(base)
    except RecipeError as error:
        return str(error)
    return ""


def possible_on(base: Base) -> list[str]:
    """The methods that can be had on a base."""
    return [method for method in PRESETS if not why_not(base, method)]


def new_prompt(base: Base, settings: Prompt, seed: int, text: Sequence[int] = ()) -> nn.Module:
    """A module whose forward gives the tensors to inject, at its seeded start.

    `text` holds the token ids to start from, where the start is a text: see `initialisation.start_ids`.

    Raises:
        RecipeError: a method that cannot be had on the base, a start that the method has not, or more tokens than the
            base's context holds.
    """
    preset = PRESETS[settings.method]
    if why := why_not(base, settings.method):
        raise RecipeError(
            f"prompt.method = {settings.method!r} cannot be had on this base. {why} Possible on it: "
            f"{listed(possible_on(base))}."
        )
    if settings.init not in preset.inits:
        raise RecipeError(
            f"{settings.method} cannot start from init = {settings.init!r}; it can from {listed(preset.inits)}."
        )
    context = context_of(base.backbone.config)
    if context is not None and settings.tokens >= context:
        raise RecipeError(
            f"prompt.tokens = {settings.tokens} leaves no room for text: the base reads {context} positions."
        )
    generator = torch.Generator().manual_seed(seed)
    start = preset.inits[settings.init](Origin(base, settings, preset.shapes(base, settings), text, generator))
    with torch.random.fork_rng(devices=[]):  # PyTorch draws the start of an encoder's layers from the global state
        torch.manual_seed(seed + 2)  # a stream of its own: `seed` drew the table, `seed + 1` draws the head
        prompt = preset.parameterisation(base, settings, start)
    return Dropout(prompt, settings.dropout, seed) if settings.dropout else prompt
