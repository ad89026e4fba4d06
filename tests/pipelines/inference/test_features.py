"""Features without work on padding are those with it, gradients included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from pipelines.inference import base as frozen
from pipelines.inference.base import Base
from pipelines.inference.features import features
from pipelines.inference.forward import hidden_states, padded, read_once

P = 3
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19, 5, 6, 7, 8, 9, 10, 11], [44, 2]]


def close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=0, atol=1e-5)  # Llama's norms are float32 in any case


def prompt_for(base: Base, kind: str, seed: int = 3) -> dict[str, Tensor]:
    """A prompt of P tokens with entries of N(0, 1), in the base's precision; or none."""
    generator, layer = torch.Generator().manual_seed(seed), base.layers[0]
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "input": {"embeddings": (P, base.hidden_width)},
        "key-value": dict.fromkeys(("keys", "values"), (len(base.layers), layer.kv_heads, P, layer.head_width)),
    }
    dtype = base.embeddings.weight.dtype
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes[kind].items()}


@pytest.mark.parametrize("kind", ["none", "input", "key-value"])
def test_packed_rows_give_the_features_and_gradients_of_padded_ones(base: Base, kind: str) -> None:
    found = []
    for packs in (base.packs, False):
        prompt = {name: tensor.requires_grad_() for name, tensor in prompt_for(base, kind).items()}
        read = features(replace(base, packs=packs), *padded(ROWS), read_once(base, prompt), "last")
        assert read.shape == (len(ROWS), base.hidden_width)
        gradients = torch.autograd.grad(read.sin().sum(), list(prompt.values())) if prompt else ()
        found.append((read.detach(), *gradients))
    for left, right in zip(*found, strict=True):
        assert close(left, right)


@pytest.mark.parametrize("kind", ["input", "key-value"])
def test_each_row_may_have_a_prompt_of_its_own(base: Base, kind: str) -> None:
    prompts = [prompt_for(base, kind, seed) for seed in range(len(ROWS))]
    stacked = {name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]}
    if kind == "key-value":
        stacked = {name: tensor.transpose(0, 1) for name, tensor in stacked.items()}
    together = features(base, *padded(ROWS), read_once(base, stacked), "last")
    for row, prompt, each in zip(ROWS, prompts, together, strict=True):
        assert close(each, hidden_states(base, *padded([row]), prompt)[0, -1])


def test_nothing_is_computed_on_padding(base: Base) -> None:
    """The last layer's MLP works on one position per row, the others on the text."""
    sizes: list[int] = []
    blocks = [layer.block for layer in base.layers]
    hooks = [
        block.mlp.register_forward_hook(lambda _, __, made: sizes.append(made.shape[:-1].numel()))
        for block in blocks
        if base.packs
    ]
    features(base, *padded(ROWS), prompt_for(base, "key-value"), "last")
    for hook in hooks:
        hook.remove()
    assert sizes == ([sum(map(len, ROWS)), len(ROWS)] if base.decoder else [])
    assert base.packs == base.decoder
    assert not any(getattr(layer.module, "soft_packing", None) for layer in base.layers)


def test_a_base_with_sliding_windows_is_not_packed() -> None:
    assert frozen._sees_all(LlamaConfig())
    assert not frozen._sees_all(MistralConfig(sliding_window=64))
    assert not frozen._sees_all(Qwen2Config(layer_types=["full_attention", "sliding_attention"], num_hidden_layers=2))
