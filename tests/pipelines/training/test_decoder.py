"""A decoder that is written out for training gives what the base itself gives, and the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import keys_and_values, padded
from pipelines.recipe import Prompt
from pipelines.training.decoder import fits, last_states, text_read, written_out
from pipelines.training.tuned import linear_head, tune

ROWS = padded([[5, 6, 7], [8] * 21, [9, 10, 11, 12], [13], [14, 15, 16]])
WORDS = {"word_ids": torch.tensor([7, 9])}


@pytest.fixture(params=["llama", "qwen2"])
def base(request: pytest.FixtureRequest) -> Base:
    """A decoder with grouped key/value heads, without biases and with them, in float64."""
    base = load_base(request.getfixturevalue(f"{request.param}_folder"))
    base.backbone.double()
    base.lm_head.double()
    return base


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "residual"])
@pytest.mark.parametrize("words", [True, False])
def test_logits_and_gradients_are_those_of_the_base(base: Base, method: str, words: bool) -> None:
    settings = Prompt.model_validate({"method": method, "tokens": 3, "rate": 0.1})
    head = WORDS if words else linear_head(base, 2, 0)
    logits, gradients = [], []
    for here in (False, True):
        tuned = tune(base, settings, head, 0).double()
        model: Any = written_out(tuned) if here else tuned
        assert model is not None
        found = model(*ROWS)
        nn.functional.cross_entropy(found, torch.tensor([0, 1, 1, 0, 1])).backward()
        logits.append(found.detach())
        gradients.append({name: parameter.grad for name, parameter in tuned.trained()})
    assert torch.allclose(*logits, rtol=0, atol=1e-6)
    for name, gradient in gradients[0].items():
        assert float(gradient.abs().max()) > 0
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-5, atol=1e-5 * float(gradient.abs().max())), name


def test_the_gradients_are_those_of_small_differences(base: Base) -> None:
    """Two prompts at once, each with rows of its own: every part's backward, checked by torch itself."""
    ids, mask = (part[:, :5] for part in ROWS)
    parts = [(ids[:2], mask[:2]), (ids[2:], mask[2:])]

    def read(vectors: Tensor) -> Tensor:
        return last_states(base, parts, {"embeddings": vectors})[:, ::5]

    vectors = torch.randn(2, 2, base.hidden_width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = [last_states(base, [part], {"embeddings": each}) for part, each in zip(parts, vectors, strict=True)]
        assert torch.allclose(last_states(base, parts, {"embeddings": vectors}), torch.cat(alone), rtol=0, atol=1e-12)
    vectors = vectors[:, :, :].requires_grad_()
    assert torch.autograd.gradcheck(read, vectors, fast_mode=True)


@pytest.mark.parametrize("length", [1, 9])
def test_what_is_read_of_a_text_are_the_keys_and_values_of_the_base(base: Base, length: int) -> None:
    ids = torch.arange(5, 5 + length)[None]
    assert torch.allclose(text_read(base, ids), torch.stack(keys_and_values(base, ids)), rtol=0, atol=1e-6)


def test_another_architecture_goes_its_own_way(base: Base, gpt2_folder: Path, bert_folder: Path) -> None:
    assert fits(base)
    assert not fits(load_base(gpt2_folder)) and not fits(load_base(bert_folder))
    base.backbone.layers[1].mlp.act_fn = nn.ReLU()  # built alike, and yet another
    assert not fits(base)
