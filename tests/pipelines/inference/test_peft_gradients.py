"""Gradients are PEFT's too, to float64's last digits: a training goes where theirs would go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

from pipelines.inference.base import Base
from pipelines.inference.forward import hidden_states, padded, read_once
from pipelines.prompts.injection import input_shapes, key_value_shapes

P = 5
ROWS = padded([[5, 9, 12, 7], [8, 6, 11, 10]])
NEXT = torch.tensor([44, 7])
# Llama's norms and rotary angles are float32 in any case.
TOLERANCE = {"bert": 1e-10, "gpt2": 1e-10, "llama": 1e-5}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", PromptTuningConfig),
        *[(name, config) for name in ("gpt2", "llama") for config in (PromptTuningConfig, PrefixTuningConfig)],
    ],
)
def test_a_prompts_gradient_is_pefts(
    name: str, config: Any, doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    base, prefix = doubled(folder), config is PrefixTuningConfig
    kind, task = (AutoModel, "FEATURE_EXTRACTION") if name == "bert" else (AutoModelForCausalLM, "CAUSAL_LM")
    plain = kind.from_pretrained(folder, attn_implementation="eager").double()
    theirs = get_peft_model(plain, config(task_type=task, num_virtual_tokens=P)).double().eval()
    table = theirs.prompt_encoder["default"].embedding.weight  # [P, d] or [P, L * 2 * H_kv * d_h]
    ids, mask = ROWS
    made = theirs(input_ids=ids, attention_mask=mask)
    _loss(made.last_hidden_state[:, P:].mean(1) if name == "bert" else made.logits[:, -1]).backward()

    shapes = key_value_shapes(base, P) if prefix else input_shapes(base, P)
    started = _stacked(table, shapes["keys"]) if prefix else {"embeddings": table}
    prompt = {part: tensor.detach().clone().requires_grad_() for part, tensor in started.items()}
    states = hidden_states(base, ids, mask, read_once(base, prompt))
    _loss(states.mean(1) if name == "bert" else base.lm_head(states[:, -1])).backward()
    wanted = _stacked(table.grad, shapes["keys"]) if prefix else {"embeddings": table.grad}
    for part, tensor in prompt.items():
        assert tensor.grad is not None and float(wanted[part].abs().max()) > 1e-3
        assert float((tensor.grad - wanted[part]).abs().max()) < TOLERANCE[name], part


def _loss(scores: Tensor) -> Tensor:
    """Cross-entropy of what comes next, from scores over the vocabulary; of an encoder's states, their width."""
    return nn.functional.cross_entropy(scores, NEXT % scores.shape[1])


def _stacked(table: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """PEFT's prefix [P, L * 2 * H_kv * d_h] as keys and values [L, H_kv, P, d_h]."""
    layers, heads, tokens, width = shape
    parts = table.view(tokens, layers, 2, heads, width).permute(2, 1, 3, 0, 4)
    return {"keys": parts[0], "values": parts[1]}
