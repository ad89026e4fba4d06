"""Methods start where they say, train as many numbers as they say, and refuse what they cannot do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from pipelines.errors import RecipeError, listed
from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import hidden_states, padded
from pipelines.prompts.injection import input_shapes, key_value_shapes
from pipelines.prompts.methods import PRESETS, new_prompt
from pipelines.prompts.parameterisation import Encoded
from pipelines.recipe import OWN_KEYS, Prompt


@pytest.fixture
def base(any_folder: Path) -> Base:
    """Each of the five bases in turn."""
    return load_base(any_folder)


SMALL = {
    "encoder": "lstm", "hidden": 6, "bottleneck": 3, "basis": 7, "layer": 1, "rank": 2, "positions": 9,
    "offset_rate": None,
}  # fmt: skip
INPUTS = ["dept", "lopa", "p-tuning", "prompt-tuning", "residual", "superpos"]  # possible on every base
KEYED = re.escape(listed((*INPUTS, "p-tuning-v2", "prefix-tuning")))
STARTS = [(method, init) for method, preset in PRESETS.items() for init in preset.inits]


def prompt_of(
    base: Base, seed: int = 1, method: str = "prompt-tuning", tokens: int = 5, text: Sequence[int] = (), **more: object
) -> nn.Module:
    """A prompt at its start, its encoder a small one."""
    small = {key: SMALL[key] for key in OWN_KEYS[method]}
    settings = Prompt.model_validate({"method": method, "tokens": tokens, "rate": 0.1, **small, **more})
    return new_prompt(base, settings, seed, text)


def started(base: Base, *args: Any, **more: Any) -> dict[str, torch.Tensor]:
    """The tensors to inject at the start."""
    tensors: dict[str, torch.Tensor] = prompt_of(base, *args, **more)()
    return tensors


@pytest.mark.parametrize(("method", "init"), STARTS)
def test_a_seed_decides_the_start(base: Base, method: str, init: str) -> None:
    more = {"init": init, "text": [7, 9], "init_text": "refund" if init == "text" else None}
    torch.manual_seed(1)
    first = prompt_of(base, 1, method, **more)
    torch.manual_seed(2)  # the global state has no say, and is left alone
    before = torch.get_rng_state()
    again, other = prompt_of(base, 1, method, **more), prompt_of(base, 2, method, **more)
    assert torch.equal(torch.get_rng_state(), before)
    tensors = first.state_dict()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in tensors.items())
    differ = [name for name, tensor in tensors.items() if not torch.equal(tensor, other.state_dict()[name])]
    nothing_drawn = method in ("prompt-tuning", "p-tuning-v2", "late") and init in ("labels", "text", "inputs")
    assert bool(differ) != nothing_drawn
    folded = first()
    assert {name: tuple(tensor.shape) for name, tensor in folded.items()} == injected(base, method)
    assert all(tensor.dtype == torch.float32 and tensor.requires_grad for tensor in folded.values())


def injected(base: Base, method: str) -> dict[str, tuple[int, ...]]:
    """What the forward pass is given by a method: five tokens, the other sizes from SMALL."""
    table = input_shapes(base, 5)
    networks = {
        f"gate_{name}_{part}": shape
        for name, rows in {"u": 5, "v": 32}.items()
        for part, shape in {"in": (6, 32), "in_bias": (6,), "out": (rows * 2, 6), "out_bias": (rows * 2,)}.items()
    }
    others: dict[str, dict[str, tuple[int, ...]]] = {
        "p-tuning-v2": key_value_shapes(base, 5),
        "prefix-tuning": key_value_shapes(base, 5),
        "late": {"layer_1": (5, 32)},
        "lopa": table | networks,
        "dept": table | {"offsets_a": (9, 2), "offsets_b": (2, 32)},
        "iapt": {
            "pool_down": (2, 2, 32),
            "pool_down_bias": (2, 2),
            "pool_queries": (2, 5, 2),
            "pool_up": (2, 32, 2),
            "pool_up_bias": (2, 32),
        },
    }
    return others.get(method, table)


def test_tables_layers_and_head_draw_from_streams_of_their_own(base: Base) -> None:
    prompt = prompt_of(base, 1, "p-tuning", tokens=4, encoder="mlp", init_scale=1.0)
    assert isinstance(prompt, Encoded)
    for seed in (1, 2):
        drawn = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(prompt.table, drawn) == (seed == 1)
    for seed in (1, 2, 3):  # 1 drew the table, 2 draws the head
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert torch.equal(prompt.mlp[0].weight, nn.Linear(32, 6).weight) == (seed == 3)


def test_every_method_of_a_recipe_has_a_preset() -> None:
    methods = get_args(Prompt.model_fields["method"].annotation)
    assert set(methods) == set(PRESETS) == set(OWN_KEYS)
    inits = {init for preset in PRESETS.values() for init in preset.inits}
    assert inits == set(get_args(Prompt.model_fields["init"].annotation))


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("hidden", [5, 6])
def test_as_many_numbers_are_trained_as_the_docstring_says(base: Base, tokens: int, hidden: int) -> None:
    layer, d, m, h = base.layers[0], base.hidden_width, hidden, 3
    key_values = 2 * len(base.layers) * layer.kv_heads * layer.head_width
    lstm = 2 * (4 * h * (d + h + 2) + 4 * h * (2 * h + h + 2))
    analytic: list[tuple[str, dict[str, object], int]] = [
        ("prompt-tuning", {}, tokens * d),
        ("p-tuning", {"hidden": m}, tokens * d + lstm + (2 * h + 1) * m + (m + 1) * d),
        ("p-tuning", {"hidden": m, "encoder": "mlp"}, tokens * d + (d + 1) * m + (m + 1) * d),
        ("p-tuning-v2", {}, tokens * key_values),
        ("prefix-tuning", {"hidden": m}, tokens * d + (d + 1) * m + (m + 1) * key_values),
        ("residual", {"bottleneck": 3}, tokens * d + 2 * d * 3 + 2 * d),
        ("superpos", {"basis": 7}, tokens * 7 + tokens * 7 * d),
        ("late", {"layer": 1}, tokens * d),
        ("lopa", {"hidden": m, "rank": 2}, tokens * d + 2 * (d + 1) * m + (m + 1) * (tokens + d) * 2),
        ("dept", {"rank": 2, "positions": 9}, tokens * d + (9 + d) * 2),
        ("iapt", {"rank": 2}, 2 * (tokens * 2 + (d + 1) * 2 + (2 + 1) * d)),
    ]
    assert {method for method, *_ in analytic} == set(PRESETS)
    for method, more, wanted in analytic:
        module = prompt_of(base, 0, method, tokens, **more)  # type: ignore[arg-type]
        assert sum(parameter.numel() for parameter in module.parameters()) == wanted, (method, more)


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


@pytest.mark.parametrize("init", ["vocabulary", "labels"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_key_value_start_from_tokens_is_real_text(name: str, init: str, request: pytest.FixtureRequest) -> None:
    """Such a prompt does to a text what its tokens themselves do when they stand before it."""
    base = load_base(request.getfixturevalue(f"{name}_folder"))
    prompt = started(base, seed=6, method="p-tuning-v2", init=init, text=[40, 41])
    drawn = torch.randperm(len(base.embeddings.weight), generator=torch.Generator().manual_seed(6))[:5].tolist()
    drawn = [40, 41, 40, 41, 40] if init == "labels" else drawn
    text = [5, 9, 12, 7]
    written_out = hidden_states(base, *padded([drawn + text]), {})[:, 5:]
    assert torch.allclose(hidden_states(base, *padded([text]), prompt), written_out, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "init", "known"),
    [
        ("p-tuning-v2", "prior", "'labels', 'random', 'text', 'vocabulary'"),
        ("prefix-tuning", "labels", "'inputs', 'prior', 'random', 'vocabulary'"),
        ("superpos", "prior", "'random', 'vocabulary'"),
        ("p-tuning-v2", "inputs", "'labels', 'random', 'text', 'vocabulary'"),
    ],
)
def test_a_start_that_a_method_has_not_is_refused(base: Base, method: str, init: str, known: str) -> None:
    with pytest.raises(RecipeError, match=rf"{method} cannot start from init = '{init}'; it can from {known}\."):
        started(base, method=method, init=init)


@pytest.mark.parametrize("method", PRESETS)
def test_a_prompt_as_long_as_the_context_is_refused(base: Base, method: str) -> None:
    assert started(base, method=method, tokens=63)
    if base.backbone.config.model_type == "t5":  # reads any number of positions
        assert started(base, method=method, tokens=64)
        return
    with pytest.raises(RecipeError, match=r"prompt.tokens = 64 leaves no room for text: the base reads 64 positions"):
        started(base, method=method, tokens=64)


def test_layers_of_different_shapes_take_no_prefix(base: Base) -> None:
    odd = dataclasses.replace(base.layers[1], kv_heads=1)
    mixed = dataclasses.replace(base, layers=(base.layers[0], odd))
    others = sorted((*INPUTS, "late", "iapt"))
    for method in ("p-tuning-v2", "prefix-tuning"):
        with pytest.raises(RecipeError, match=rf"'{method}' cannot be had .* layers of one shape") as caught:
            started(mixed, method=method)
        assert str(caught.value).endswith(f" Possible on it: {listed(others)}.")
    assert started(mixed)


@pytest.mark.parametrize("layer", [2, 7])
def test_a_layer_that_the_base_has_not_is_refused(base: Base, layer: int) -> None:
    with pytest.raises(RecipeError, match=rf"prompt.layer = {layer}, but this base has 2 layers: it can be 1 to 1"):
        started(base, method="late", layer=layer)


def test_layers_that_cannot_be_told_apart_take_no_late_prompt(base: Base) -> None:
    """As where one layer runs several times, or where what holds an attention is not known."""
    for layers in (base.layers[:1] * 2, (base.layers[0], dataclasses.replace(base.layers[1], block=None))):
        with pytest.raises(RecipeError, match=rf"has 2 attentions in 1 layers\. Possible on it: {KEYED}\."):
            started(dataclasses.replace(base, layers=layers), method="late")


@pytest.mark.parametrize("method", ["late", "iapt"])
def test_layers_that_give_more_than_states_are_not_entered(base: Base, method: str) -> None:
    block = base.layers[0].block
    assert block is not None
    own = block.forward
    block.forward = lambda *given, **options: (own(*given, **options), None)
    with pytest.raises(RecipeError, match=r"gives 'tuple' instead of hidden states, so a prompt cannot enter between"):
        started(base, method=method)


def test_a_gate_and_offsets_start_as_published(base: Base) -> None:
    gate = started(base, method="lopa", hidden=60, rank=8)
    for name, tensor in gate.items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif name != "embeddings":
            assert tensor.std().item() == pytest.approx(0.02, rel=0.1), name
    offsets = started(base, method="dept", rank=4, positions=60)
    assert not offsets["offsets_b"].any()
    assert 0.45 < offsets["offsets_a"].detach().abs().max() <= 0.5
    table = started(base)["embeddings"]  # a seed draws the same table, whatever stands beside it
    assert torch.equal(gate["embeddings"], table) and torch.equal(offsets["embeddings"], table)
