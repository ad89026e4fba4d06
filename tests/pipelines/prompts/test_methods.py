"""Methods start where they say, train as many numbers as they say, and refuse what they cannot do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pipelines.errors import RecipeError
from pipelines.inference.forward import Base, hidden_states, load_base, padded
from pipelines.prompts import initialisation
from pipelines.prompts.methods import PRESETS, new_prompt
from pipelines.recipe import Prompt


@pytest.fixture
def base(any_folder: Path) -> Base:
    """Each of the three bases in turn."""
    return load_base(any_folder)


def started(
    base: Base, seed: int = 1, method: str = "prompt-tuning", tokens: int = 5, **more: object
) -> dict[str, torch.Tensor]:
    settings = Prompt.model_validate({"method": method, "tokens": tokens, "rate": 0.1, **more})
    tensors: dict[str, torch.Tensor] = new_prompt(base, settings, seed)()
    return tensors


STARTS = [(method, init) for method, preset in PRESETS.items() for init in preset.inits]


@pytest.mark.parametrize(("method", "init"), STARTS)
def test_a_seed_decides_the_start(base: Base, method: str, init: str) -> None:
    torch.manual_seed(1)
    first = started(base, 1, method, init=init)
    torch.manual_seed(2)  # the global state has no say
    again, other = started(base, 1, method, init=init), started(base, 2, method, init=init)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]) and not torch.equal(tensor, other[name])
        assert tensor.dtype == torch.float32 and tensor.requires_grad


@pytest.mark.parametrize("tokens", [1, 7])
def test_as_many_numbers_are_trained_as_the_papers_say(base: Base, tokens: int) -> None:
    layer = base.layers[0]
    analytic = {
        "prompt-tuning": tokens * base.hidden_width,
        "p-tuning-v2": 2 * len(base.layers) * tokens * layer.kv_heads * layer.head_width,
    }
    for method, wanted in analytic.items():
        module = new_prompt(base, Prompt(method=method, tokens=tokens, rate=0.1), seed=0)
        assert sum(parameter.numel() for parameter in module.parameters()) == wanted


def test_grouped_queries_make_a_prefix_smaller(llama_folder: Path, gpt2_folder: Path) -> None:
    sizes = [
        sum(tensor.numel() for tensor in started(load_base(folder), method="p-tuning-v2").values())
        for folder in (llama_folder, gpt2_folder)
    ]
    assert 2 * sizes[0] == sizes[1]


def test_a_random_start_has_the_scale_it_was_given(base: Base) -> None:
    for scale in (0.02, 3.0):
        tensor = started(base, tokens=60, init_scale=scale)["embeddings"]
        assert tensor.std().item() == pytest.approx(scale, rel=0.1)
        assert abs(tensor.mean().item()) < 0.1 * scale
    prefix = started(base, method="p-tuning-v2", tokens=60)
    assert not torch.equal(prefix["keys"], prefix["values"])


def test_a_vocabulary_start_is_different_tokens_of_the_base(base: Base) -> None:
    vectors = started(base, tokens=40, init="vocabulary")["embeddings"]
    table = base.embeddings.weight.clone()
    same = (vectors[:, None] == table[None]).all(-1)  # [P, vocabulary]
    assert same.any(1).all() and len(set(same.float().argmax(1).tolist())) == 40
    with torch.no_grad():
        vectors.zero_()
    assert torch.equal(base.embeddings.weight, table)  # the start was a copy of them


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_key_value_start_from_the_vocabulary_is_real_text(name: str, request: pytest.FixtureRequest) -> None:
    """Such a prompt does to a text what the drawn tokens themselves do when they stand before it."""
    base = load_base(request.getfixturevalue(f"{name}_folder"))
    prompt = started(base, seed=6, method="p-tuning-v2", init="vocabulary")
    drawn = torch.randperm(len(base.embeddings.weight), generator=torch.Generator().manual_seed(6))[:5].tolist()
    text = [5, 9, 12, 7]
    written_out = hidden_states(base, *padded([drawn + text]), {})[:, 5:]
    assert torch.allclose(hidden_states(base, *padded([text]), prompt), written_out, atol=1e-4)


def test_a_start_that_a_method_has_not_is_refused(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    without = dataclasses.replace(PRESETS["p-tuning-v2"], inits={"random": initialisation.random})
    monkeypatch.setitem(PRESETS, "p-tuning-v2", without)
    with pytest.raises(RecipeError, match=r"p-tuning-v2 cannot start from init = 'vocabulary'; it can from 'random'\."):
        started(base, method="p-tuning-v2", init="vocabulary")


@pytest.mark.parametrize("method", PRESETS)
def test_a_prompt_as_long_as_the_context_is_refused(base: Base, method: str) -> None:
    assert started(base, method=method, tokens=63)
    with pytest.raises(RecipeError, match=r"prompt.tokens = 64 leaves no room for text: the base reads 64 positions"):
        started(base, method=method, tokens=64)


def test_layers_of_different_shapes_take_no_prefix(base: Base) -> None:
    odd = dataclasses.replace(base.layers[1], kv_heads=1)
    mixed = dataclasses.replace(base, layers=(base.layers[0], odd))
    with pytest.raises(RecipeError, match=r"needs attention layers of one shape.*Use method = 'prompt-tuning'"):
        started(mixed, method="p-tuning-v2")
    assert started(mixed)
