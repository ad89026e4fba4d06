"""Where a soft prompt enters the base: the names and shapes of the tensors that `inference/forward.py` understands.

input       `embeddings` [P, d]                 before the text, among the input embeddings
key-value   `keys`, `values` [L, H_kv, P, d_h]  before the text, in every layer's attention
"""

from __future__ import annotations

from pipelines.errors import RecipeError
from pipelines.inference.forward import Base

Shapes = dict[str, tuple[int, ...]]


def input_shapes(base: Base, tokens: int) -> Shapes:
    """The tensor of a prompt among the input embeddings: P vectors of width d."""
    return {"embeddings": (tokens, base.hidden_width)}


def key_value_shapes(base: Base, tokens: int) -> Shapes:
    """The tensors of a prompt in every layer: P keys and values for each key/value head.

    Raises:
        RecipeError: the base's layers differ in shape, so that they do not stack.
    """
    layers = {(layer.kv_heads, layer.head_width) for layer in base.layers}
    if len(layers) != 1:
        raise RecipeError(
            "A prompt of keys and values needs attention layers of one shape; this base has (heads, width) "
            f"{sorted(layers)!r}. Use method = 'prompt-tuning'."
        )
    shape = (len(base.layers), base.layers[0].kv_heads, tokens, base.layers[0].head_width)
    return {"keys": shape, "values": shape}
