"""What each method trains, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.errors import RecipeError
from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import padded
from pipelines.recipe import Adapters, Full, HeadOnly, Lora, Prompt, ZeroShot
from pipelines.training.tuned import Tuned, linear_head, train_mode, tune

METHODS = {
    "prompt-tuning": Prompt(method="prompt-tuning", tokens=4, rate=0.1),
    "p-tuning-v2": Prompt(method="p-tuning-v2", tokens=4, rate=0.1),
    "p-tuning": Prompt(method="p-tuning", tokens=4, rate=0.1, hidden=5),
    "p-tuning by mlp": Prompt(method="p-tuning", tokens=4, rate=0.1, encoder="mlp", hidden=6),
    "prefix-tuning": Prompt(method="prefix-tuning", tokens=4, rate=0.1, hidden=6),
    "residual": Prompt(method="residual", tokens=4, rate=0.1, bottleneck=3),
    "superpos": Prompt(method="superpos", tokens=4, rate=0.1, basis=7),
    "late": Prompt(method="late", tokens=4, rate=0.1, layer=1),
    "lopa": Prompt(method="lopa", tokens=4, rate=0.1, hidden=6, rank=2),
    "dept": Prompt(method="dept", tokens=4, rate=0.1, rank=2, positions=5),
    "iapt": Prompt(method="iapt", tokens=4, rate=0.1, rank=2),
    "lora": Lora(rank=2, rate=1e-3),
    "adapters": Adapters(bottleneck=3, rate=1e-3),
    "full": Full(rate=1e-3),
    "head_only": HeadOnly(rate=0.1),
}
ROWS = padded([[5, 9, 12, 7], [6], [21, 14, 11, 8, 30, 41]])


@pytest.fixture
def base(any_folder: Path) -> Base:
    """Each of the five bases in turn."""
    return load_base(any_folder)


def tuned_by(base: Base, method: str, classes: int = 3) -> Tuned:
    return tune(base, METHODS[method], linear_head(base, classes, seed=0), seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_every_trained_tensor_gets_a_gradient(base: Base, method: str) -> None:
    all_get_gradients(tuned_by(base, method))
    untouched = [each for each in tuned_by(base, method).parameters() if not each.requires_grad]
    assert bool(untouched) == (method != "full")


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"head_only"}))
def test_every_trained_tensor_gets_a_gradient_from_label_words(
    name: str, method: str, request: pytest.FixtureRequest
) -> None:
    base = load_base(request.getfixturevalue(f"{name}_folder"))
    head = {"word_ids": torch.tensor([[7, 9], [8, -1], [11, 12]])}
    if base.seq2seq is not None:
        head["opening"] = torch.tensor([0])
    if method == "iapt" and base.decoder:
        with pytest.raises(RecipeError, match=r"iapt makes its prompt of all that a decoder reads.*one token each"):
            tune(base, METHODS[method], head, seed=0)
        return
    tuned = tune(base, METHODS[method], head, seed=0)
    all_get_gradients(tuned)
    if base.seq2seq is not None and method in ("lora", "adapters", "full"):  # the decoder learns with the encoder
        assert any("decoder" in name for name, _ in tuned.trained())


def all_get_gradients(tuned: Tuned) -> None:
    with torch.no_grad():  # second factors start at zero in LoRA, adapters and DePT, which hides the first's gradient
        for name, parameter in tuned.trained():
            if any(second in name for second in ("lora_B", "adapter.up", "offsets_b")):
                parameter.normal_()
    nn.functional.cross_entropy(tuned(*ROWS), torch.tensor([0, 1, 2])).backward()
    for name, parameter in tuned.trained():
        assert parameter.grad is not None, name
        # Softmax does not feel what is added to all keys alike: a key's bias alone is never learnt.
        if not name.endswith(("key.bias", "k_proj.bias")):
            assert float(parameter.grad.abs().max()) > 0, name
    assert all(parameter.grad is None for parameter in tuned.parameters() if not parameter.requires_grad)


def test_as_many_numbers_are_trained_as_counted_by_hand(base: Base) -> None:
    d, head = base.hidden_width, 3 * base.hidden_width + 3
    layer = base.layers[0]
    prefix = 2 * len(base.layers) * 4 * layer.kv_heads * layer.head_width
    whole = sum(parameter.numel() for parameter in base.backbone.parameters())
    wide = {name: [(d, d)] * 2 for name in ("bert", "t5", "bart")}  # in, out of what is updated
    wide |= {"gpt2": [(d, 3 * d)], "llama": [(d, d), (d, 2 * 8)]}
    lora = sum(2 * (a + b) for a, b in wide[base.backbone.config.model_type]) * len(base.layers)
    lstm = sum(2 * 4 * 3 * (read + 3 + 2) for read in (d, 6))  # two ways, four gates, 3 wide; a second layer over both
    wanted = {
        "prompt-tuning": 4 * d,
        "p-tuning-v2": prefix,
        "p-tuning": 4 * d + lstm + (6 + 1) * 5 + (5 + 1) * d,
        "p-tuning by mlp": 4 * d + (d + 1) * 6 + (6 + 1) * d,
        "prefix-tuning": 4 * d + (d + 1) * 6 + (6 + 1) * prefix // 4,
        "residual": 4 * d + 2 * d * 3 + 2 * d,
        "superpos": 4 * 7 + 4 * 7 * d,
        "late": 4 * d,
        "lopa": 4 * d + 2 * (d + 1) * 6 + (6 + 1) * (4 + d) * 2,
        "dept": 4 * d + (5 + d) * 2,
        "iapt": len(base.layers) * (4 * 2 + (d + 1) * 2 + (2 + 1) * d),
        "lora": lora,
        "adapters": len(base.layers) * (2 * d * 3 + 3 + d),
        "full": whole,
        "head_only": 0,
    }
    assert wanted.keys() == METHODS.keys()
    for method in METHODS:
        assert tuned_by(base, method).trainable_params() == wanted[method] + head, method


@pytest.mark.parametrize("method", ["lora", "adapters", "full"])
def test_a_baseline_works_on_a_copy_of_the_base(base: Base, method: str) -> None:
    before = {name: weight.clone() for name, weight in base.whole.state_dict().items()}
    states = [tuned_by(base, method) for _ in range(2)]
    with torch.no_grad():
        for _, parameter in states[0].trained():
            parameter.add_(1.0)
    after = base.whole.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in base.whole.parameters())
    shared = {id(parameter) for parameter in base.whole.parameters()}
    for tuned in states:
        assert shared.isdisjoint(id(parameter) for parameter in tuned.parameters())
    assert not torch.equal(states[0](*ROWS), states[1](*ROWS))


@pytest.mark.parametrize("method", ["lora", "adapters", "full", "head_only"])
def test_a_baseline_starts_as_the_base(base: Base, method: str) -> None:
    bare = Tuned(base, None, linear_head(base, 3, seed=0))
    assert torch.equal(tuned_by(base, method).eval()(*ROWS), bare(*ROWS))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_full_fine_tuning_trains_tied_embeddings_once(name: str, request: pytest.FixtureRequest) -> None:
    base = load_base(request.getfixturevalue(f"{name}_folder"))
    assert base.lm_head.weight is base.embeddings.weight
    tuned = tune(base, METHODS["full"], {"word_ids": torch.tensor([7, 9])}, seed=0)
    assert tuned.lm_head.weight is tuned.base.embeddings.weight is not base.lm_head.weight
    assert tuned.trainable_params() == sum(parameter.numel() for parameter in base.backbone.parameters())
    nn.functional.cross_entropy(tuned(*ROWS), torch.tensor([0, 1, 1])).backward()
    gradient = tuned.base.embeddings.weight.grad
    assert gradient is not None and float(gradient[7].abs().max()) > 0


def test_a_verbaliser_trains_no_head(gpt2_folder: Path) -> None:
    base = load_base(gpt2_folder)
    words = {"word_ids": torch.tensor([7, 9])}
    assert tune(base, METHODS["prompt-tuning"], words, seed=0).trainable_params() == 4 * 32
    assert tune(base, ZeroShot(), words, seed=0).trainable_params() == 0
    assert tune(base, ZeroShot(), words, seed=0)(*ROWS).shape == (3, 2)


def test_what_was_stored_goes_back(base: Base) -> None:
    for method in METHODS:
        first, second = tuned_by(base, method).eval(), tuned_by(base, method).eval()
        with torch.no_grad():
            for _, parameter in first.trained():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        assert not torch.equal(first(*ROWS), second(*ROWS)), method
        second.restore({name: parameter.detach().clone() for name, parameter in first.trained()})
        assert torch.equal(first(*ROWS), second(*ROWS)), method


def test_weights_of_another_method_do_not_go_back(base: Base) -> None:
    weights: Any = dict(tuned_by(base, "p-tuning-v2").trained())
    with pytest.raises(ValueError, match=r"Stored weights .*'prompt.keys'.* do not fit; this method trains"):
        tuned_by(base, "prompt-tuning").restore(weights)


@pytest.mark.parametrize("method", METHODS)
def test_the_bases_own_dropout_is_on_for_full_fine_tuning_alone(base: Base, method: str) -> None:
    settings = METHODS[method]
    tuned = tuned_by(base, method)
    train_mode(tuned, settings)
    same = torch.equal(tuned(*ROWS), tuned(*ROWS))
    has_dropout = base.backbone.config.model_type != "llama"
    assert same == (method != "full" or not has_dropout)
    train_mode(tuned, Full(rate=1e-3, dropout=False))
    assert torch.equal(tuned(*ROWS), tuned(*ROWS))


@pytest.mark.parametrize(
    "method", [name for name, each in METHODS.items() if isinstance(each, Prompt | Lora | Adapters)]
)
def test_a_methods_own_dropout_is_on_while_it_trains(base: Base, method: str) -> None:
    settings = METHODS[method].model_copy(update={"dropout": 0.5})
    tuned = tune(base, settings, linear_head(base, 3, 0), 0)
    with torch.no_grad():
        for _, parameter in tuned.trained():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # LoRA and adapters start as nothing
    tuned.eval()
    rested = tuned(*ROWS)
    assert torch.equal(rested, tuned(*ROWS))
    train_mode(tuned, settings)
    assert not torch.equal(tuned(*ROWS), tuned(*ROWS))
    tuned.eval()
    assert torch.equal(rested, tuned(*ROWS))


def test_lora_can_be_told_where(llama_folder: Path, gpt2_folder: Path) -> None:
    base = load_base(llama_folder)
    tuned = tune(base, Lora(rank=1, rate=0.1, targets=("down_proj",)), linear_head(base, 2, 0), 0)
    assert tuned.trainable_params() == 2 * (64 + 32) + 2 * 32 + 2
    with pytest.raises(RecipeError, match=r"targets = \['wide'\] are not in this base; it has 'down_proj'.*'v_proj'"):
        tune(base, Lora(rate=0.1, targets=("wide",)), linear_head(base, 2, 0), 0)


def test_an_adapter_stands_behind_each_feed_forward_part(base: Base) -> None:
    """As Houlsby et al. draw it: what that part gives, and what the adapter makes of it, before the layer adds."""
    ends = {
        "bert": "output.dense", "gpt2": "mlp.c_proj", "llama": "mlp.down_proj", "t5": "DenseReluDense.wo", "bart": "fc2"
    }  # fmt: skip
    tuned = tuned_by(base, "adapters").eval()
    places = {name: part for name, part in tuned.backbone.named_modules() if hasattr(part, "adapter")}
    assert len(places) == len(base.layers)
    assert all(name.endswith(ends[base.backbone.config.model_type]) for name in places), places
    assert not any(name.endswith("attention.output.dense") for name in places)
    with torch.no_grad():
        for place in places.values():
            place.adapter.up.weight.normal_()
    seen: list[torch.Tensor] = []
    place = next(iter(places.values()))
    place.register_forward_hook(lambda part, given, made: seen.extend((given[0], made)))
    tuned(*ROWS)
    plain = type(place).forward(place, seen[0])
    down, up = place.adapter.down, place.adapter.up
    added = nn.functional.gelu(plain @ down.weight.T + down.bias) @ up.weight.T + up.bias
    torch.testing.assert_close(seen[1], plain + added)


def test_layers_that_end_in_no_linear_map_get_no_adapters(llama_folder: Path) -> None:
    class Halved(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return super().forward(states)[..., :32]

    base = load_base(llama_folder)
    base.layers[1].block.mlp = Halved(32, 64)
    with pytest.raises(RecipeError, match=r"layers of this base \('llama'\) end otherwise.*\[baselines.lora\]"):
        tune(base, METHODS["adapters"], linear_head(base, 2, 0), 0)
