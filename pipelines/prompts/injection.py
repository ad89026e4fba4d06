"""Where a soft prompt enters the base: the names and shapes of the tensors that `inference/forward.py` understands.

input       `embeddings` [P, d]                 before the text, among the input embeddings
            `inserted` [P, d]                   among them too, where a row has its marker
            `in_decoder` [P, d]                 before what the decoder of an encoder-decoder says
key-value   `keys`, `values` [L, H_kv, P, d_h]  before the text, in every layer's attention
layer       `layer_M` [P, d]                    before the text, among the hidden states that layer M reads

What is made for each text enters at the input: `inference/instance.py` names its tensors.
"""

from __future__ import annotations

import torch

from pipelines.errors import RecipeError
from pipelines.inference.base import Base
from pipelines.inference.forward import states_from

Shapes = dict[str, tuple[int, ...]]


def input_shapes(base: Base, tokens: int) -> Shapes:
    """The tensor of a prompt among the input embeddings: P vectors of width d."""
    return {"embeddings": (tokens, base.hidden_width)}


def separate_layers(base: Base) -> int:
    """How many layers a base has that hidden states run through one after the other, each with weights of its own.

    Raises:
        RecipeError: it has none, they cannot be told apart, or they give more than hidden states and a T5's bias.
    """
    layers = len({id(each.block) for each in base.layers if each.block is not None})
    if not base.layers or layers != len(base.layers):
        raise RecipeError(
            f"A prompt that enters between layers needs a base of separate layers, one after the other; this one has "
            f"{len(base.layers)} attentions in {layers} layers."
        )
    nothing = base.embeddings.weight.new_zeros(1, 1, base.hidden_width)
    try:
        states_from(base, nothing, torch.ones_like(nothing[..., 0], dtype=torch.long), 0, nothing)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return layers


def at_layer(base: Base, layer: int | None) -> str:
    """What the tensor of a prompt is called that enters at a layer of this base.

    Raises:
        RecipeError: the base has no such layer, or its layers cannot be told apart.
    """
    layers = separate_layers(base)
    if layer is None or not 1 <= layer < layers:
        raise RecipeError(
            f"prompt.layer = {layer!r}, but this base has {layers} layers: it can be 1 to {layers - 1}. A prompt "
            "before the first of them is method = 'prompt-tuning'."
        )
    return f"layer_{layer}"


def key_value_shapes(base: Base, tokens: int) -> Shapes:
    """The tensors of a prompt in every layer: P keys and values for each key/value head.

    Raises:
        RecipeError: the base's layers differ in shape, so that they do not stack.
    """
    layers = {(layer.kv_heads, layer.head_width) for layer in base.layers}
    if len(layers) != 1:
        raise RecipeError(
            "A prompt of keys and values needs attention layers of one shape; this base has (heads, width) "
            f"{sorted(layers)!r}."
        )
    shape = (len(base.layers), base.layers[0].kv_heads, tokens, base.layers[0].head_width)
    return {"keys": shape, "values": shape}
