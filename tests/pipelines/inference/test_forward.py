"""The forward pass against naive ones: what is equal in mathematics is equal in numbers, on every architecture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
    T5Config,
)

from pipelines.inference import forward
from pipelines.inference.forward import (
    Base,
    class_scores,
    features,
    hidden_states,
    load_base,
    padded,
    pooled,
    read_once,
)

P = 3
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]
TOLERANCE = {"bert": 1e-10, "gpt2": 1e-10, "llama": 1e-5}  # Llama's norms and rotary angles are float32 in any case


def close(base: Base, left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


def prompt_for(base: Base, kind: str, seed: int = 3) -> dict[str, Tensor]:
    """A prompt of P tokens with entries of N(0, 1), in the base's precision."""
    generator = torch.Generator().manual_seed(seed)
    layer = base.layers[0]
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "input": {"embeddings": (P, base.hidden_width)},
        "key-value": dict.fromkeys(("keys", "values"), (len(base.layers), layer.kv_heads, P, layer.head_width)),
    }
    dtype = base.embeddings.weight.dtype
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes[kind].items()}


def alone(base: Base, row: list[int], prompt: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return hidden_states(base, *padded([row]), prompt)[0]


# Batches and padding.


@pytest.mark.parametrize("kind", ["none", "input", "key-value"])
@pytest.mark.parametrize("pad", [0, 13])
@torch.no_grad()
def test_padding_changes_nothing(base: Base, kind: str, pad: int) -> None:
    prompt = prompt_for(base, kind)
    together = hidden_states(base, *padded(ROWS, pad), prompt)
    for row, states in zip(ROWS, together, strict=True):
        assert close(base, states[: len(row)], alone(base, row, prompt))


@pytest.mark.parametrize("kind", ["none", "input", "key-value"])
@torch.no_grad()
def test_eight_rows_of_one_length_are_eight_batches_of_one(base: Base, kind: str) -> None:
    prompt = prompt_for(base, kind)
    rows = torch.randint(5, 90, (8, 7), generator=torch.Generator().manual_seed(1)).tolist()
    together = hidden_states(base, *padded(rows), prompt)
    assert together.shape == (8, 7, base.hidden_width)
    for row, states in zip(rows, together, strict=True):
        assert close(base, states, alone(base, row, prompt))


@pytest.mark.parametrize("kind", ["input", "key-value"])
@torch.no_grad()
def test_a_prompt_matters(base: Base, kind: str) -> None:
    ids, mask = padded(ROWS)
    states = [
        hidden_states(base, ids, mask, prompt) for prompt in ({}, prompt_for(base, kind), prompt_for(base, kind, 4))
    ]
    assert all(float((a - b).abs().max()) > 0.1 for a, b in [(states[0], states[1]), (states[1], states[2])])


@pytest.mark.parametrize("kind", ["input", "key-value"])
@torch.no_grad()
def test_bf16_stays_near_fp32(any_folder: Path, kind: str) -> None:
    base = load_base(any_folder)
    prompt = {name: tensor * 0.1 for name, tensor in prompt_for(base, kind).items()}
    exact = hidden_states(base, *padded(ROWS[:1]), prompt)
    with torch.autocast("cpu", torch.bfloat16):
        rough = hidden_states(base, *padded(ROWS[:1]), prompt).float()
    assert 0 < float((rough - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("kind", ["none", "input", "key-value"])
def test_training_and_serving_compute_the_same(base: Base, kind: str) -> None:
    """Attention may take another kernel where gradients are wanted."""
    prompt, (ids, mask) = prompt_for(base, kind), padded(ROWS)
    with torch.no_grad():
        served = hidden_states(base, ids, mask, prompt)
    for parameter in base.backbone.parameters():
        parameter.requires_grad_(True)
    trained = hidden_states(base, ids, mask, prompt)
    assert trained.requires_grad and close(base, trained[mask == 1], served[mask == 1])


# Without padding.


@pytest.mark.parametrize("kind", ["none", "key-value"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_packed_rows_give_the_features_and_gradients_of_padded_ones(base: Base, kind: str, pooling: str) -> None:
    ids, mask = padded(ROWS)
    found = []
    for packs in (base.packs, False):
        prompt = {name: tensor.requires_grad_() for name, tensor in prompt_for(base, kind).items()}
        read = features(replace(base, packs=packs), ids, mask, prompt, pooling)
        assert read.shape == (len(ROWS), base.hidden_width)
        gradients = torch.autograd.grad(read.sin().sum(), list(prompt.values())) if prompt else ()
        found.append((read.detach(), *gradients))
    for left, right in zip(*found, strict=True):
        assert close(base, left, right)


@pytest.mark.parametrize("kind", ["input", "key-value"])
def test_each_row_may_have_a_prompt_of_its_own(base: Base, kind: str) -> None:
    prompts = [prompt_for(base, kind, seed) for seed in range(len(ROWS))]
    stacked = {name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]}
    if kind == "key-value":
        stacked = {name: tensor.transpose(0, 1) for name, tensor in stacked.items()}
    for together in (stacked, read_once(base, stacked)):
        states = hidden_states(base, *padded(ROWS), together)
        for row, prompt, each in zip(ROWS, prompts, states, strict=True):
            assert close(base, each[: len(row)], alone(base, row, prompt))


def test_nothing_is_computed_on_padding(base: Base) -> None:
    """The last layer's MLP sees one position per row, the others see the text."""
    sizes: list[int] = []
    hooks = [layer.mlp.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[:-1].numel()))
             for layer in base.layers if layer.mlp is not None]  # fmt: skip
    features(base, *padded(ROWS), prompt_for(base, "key-value"), "last")
    for hook in hooks:
        hook.remove()
    text = sum(map(len, ROWS))
    assert sizes == ([text, text] if base.packs else [])  # these hooks come before the one that takes the last


def test_a_base_with_sliding_windows_is_not_packed() -> None:
    assert forward._sees_all(LlamaConfig())
    assert not forward._sees_all(MistralConfig(sliding_window=64))
    assert not forward._sees_all(Qwen2Config(layer_types=["full_attention", "sliding_attention"], num_hidden_layers=2))


# Against the model itself, in transformers' plain attention.


def reference(folder: Path) -> Any:
    return AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()


@torch.no_grad()
def test_without_a_prompt_it_is_the_base(base: Base, any_folder: Path) -> None:
    ids, mask = padded(ROWS)
    wanted = reference(any_folder)(input_ids=ids, attention_mask=mask).last_hidden_state
    assert close(base, hidden_states(base, ids, mask, {})[mask == 1], wanted[mask == 1])


@torch.no_grad()
def test_an_input_prompt_is_vectors_before_the_token_embeddings(base: Base, any_folder: Path) -> None:
    ids, mask = padded(ROWS)
    prompt, model = prompt_for(base, "input"), reference(any_folder)
    vectors = torch.cat([prompt["embeddings"].expand(len(ROWS), -1, -1), model.get_input_embeddings()(ids)], dim=1)
    seen = torch.cat([torch.ones(len(ROWS), P, dtype=torch.long), mask], dim=1)
    wanted = model(inputs_embeds=vectors, attention_mask=seen).last_hidden_state[:, P:]
    assert close(base, hidden_states(base, ids, mask, prompt)[mask == 1], wanted[mask == 1])


def with_cache(model: Any, ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Any:
    """The model over a cache that holds the prompt's keys and values for every row."""
    cache = DynamicCache()
    for number, (key, value) in enumerate(zip(prompt["keys"], prompt["values"], strict=True)):
        cache.update(key.expand(len(ids), -1, -1, -1), value.expand(len(ids), -1, -1, -1), number)
    seen = torch.cat([mask.new_ones(len(ids), P), mask], dim=1)
    return model(input_ids=ids, attention_mask=seen, past_key_values=cache)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("rows", [ROWS, [[5, 9, 12, 7], [8, 6, 11, 10]]], ids=["padded", "even"])
@torch.no_grad()
def test_a_decoders_prefix_is_its_own_cache(
    name: str, rows: list[list[int]], doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    base = doubled(folder)
    ids, mask = padded(rows)
    prompt = prompt_for(base, "key-value")
    wanted = with_cache(reference(folder), ids, mask, prompt).last_hidden_state
    assert close(base, hidden_states(base, ids, mask, prompt)[mask == 1], wanted[mask == 1])


def test_a_decoder_reads_an_input_prompt_once_for_all_rows(base: Base) -> None:
    """Same states and same gradients, although the prompt was read at batch 1."""
    vectors = prompt_for(base, "input")["embeddings"].requires_grad_()
    once = read_once(base, {"embeddings": vectors})
    assert set(once) == ({"keys", "values"} if base.decoder else {"embeddings"})
    weights = torch.randn(base.hidden_width, generator=torch.Generator().manual_seed(2)).to(vectors.dtype)
    found = []
    for prompt in ({"embeddings": vectors}, once):
        ids, mask = padded(ROWS)
        states = hidden_states(base, ids, mask, prompt)[mask.bool()]
        (gradient,) = torch.autograd.grad((states @ weights).sum(), vectors)
        found.append((states.detach(), gradient))
    for left, right in zip(*found, strict=True):
        assert close(base, left, right)


def test_a_prompt_of_keys_is_read_already(base: Base) -> None:
    prompt = prompt_for(base, "key-value")
    assert read_once(base, prompt) is prompt


@torch.no_grad()
def test_heads_need_not_split_the_hidden_width(doubled: Callable[[Path], Base], tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=60, **sizes, num_key_value_heads=1, head_dim=12, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    base = doubled(tmp_path)
    assert [(layer.kv_heads, layer.head_width) for layer in base.layers] == [(1, 12)] * 3
    ids, mask = padded(ROWS)
    prompt = prompt_for(base, "key-value")
    wanted = with_cache(reference(tmp_path), ids, mask, prompt).last_hidden_state
    assert close(base, hidden_states(base, ids, mask, prompt)[mask == 1], wanted[mask == 1])


@torch.no_grad()
def test_an_encoders_prefix_is_text_that_is_only_attended_to(
    doubled: Callable[[Path], Base], bert_folder: Path
) -> None:
    """Attention has no order: in [text, more] the text sees what it sees alone over the keys and values of `more`."""
    base, text, more = doubled(bert_folder), ROWS[0], [31, 16, 25]
    found: dict[str, list[Tensor]] = {"key": [], "value": []}
    hooks = [
        getattr(layer.module, name).register_forward_hook(lambda _, __, made, name=name: found[name].append(made))
        for layer in base.layers
        for name in found
    ]
    wanted = alone(base, text + more, {})[: len(text)]
    for hook in hooks:
        hook.remove()
    tensors = {
        f"{name}s": torch.cat([made[:, len(text) :].unflatten(2, (4, 8)).transpose(1, 2) for made in layers])
        for name, layers in found.items()
    }
    assert tensors["keys"].shape == (2, 4, 3, 8)
    assert close(base, alone(base, text, tensors), wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_decoders_prefix_is_pefts(name: str, doubled: Callable[[Path], Base], request: pytest.FixtureRequest) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    folder = request.getfixturevalue(f"{name}_folder")
    base = doubled(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
    peft = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)).double().eval()
    prompt = prompt_for(base, "key-value")
    stacked = torch.stack([prompt["keys"], prompt["values"]], dim=1)  # [L, 2, H_kv, P, d_h]
    table = peft.prompt_encoder["default"].embedding.weight  # [P, L * 2 * H_kv * d_h]
    table.copy_(stacked.permute(3, 0, 1, 2, 4).reshape(P, -1))
    ids, mask = padded([[5, 9, 12, 7], [8, 6, 11, 10]])
    wanted = peft(input_ids=ids, attention_mask=mask).logits
    assert close(base, base.lm_head(hidden_states(base, ids, mask, prompt)), wanted)


# Heads.


@torch.no_grad()
def test_pooling_reads_text_only() -> None:
    states = torch.arange(24, dtype=torch.float64).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.equal(pooled(states, mask, "mean"), torch.stack([states[0, :2].mean(0), states[1].mean(0)]))
    assert torch.equal(pooled(states, mask, "last"), torch.stack([states[0, 1], states[1, 3]]))


def test_encoders_pool_the_mean_and_decoders_the_last(base: Base) -> None:
    assert base.pooling == ("mean" if base.backbone.config.model_type == "bert" else "last")
    assert base.decoder == (base.lm_head is not None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_verbaliser_gives_the_label_words_logits(
    name: str, bias: bool, doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    base, words = doubled(folder), torch.tensor([44, 7, 20])
    ids, mask = padded(ROWS[:1])
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()
    wanted = model(input_ids=ids, attention_mask=mask).logits[:, -1]
    if bias:
        base.lm_head.bias = torch.nn.Parameter(torch.randn(len(base.lm_head.weight), dtype=torch.float64))
        wanted = wanted + base.lm_head.bias
    features = pooled(hidden_states(base, ids, mask, {}), mask, "last")
    assert close(base, class_scores(base, features, {"word_ids": words}), wanted[:, words])


def test_a_verbaliser_needs_a_language_model(bert_folder: Path) -> None:
    with pytest.raises(ValueError, match="needs a base with a language-model head"):
        class_scores(load_base(bert_folder), torch.zeros(1, 32), {"word_ids": torch.tensor([1])})


def test_a_linear_head_is_a_linear_map(bert_folder: Path) -> None:
    features, weight, bias = torch.randn(5, 32), torch.randn(3, 32), torch.randn(3)
    logits = class_scores(load_base(bert_folder), features, {"weight": weight, "bias": bias})
    assert torch.allclose(logits, features @ weight.T + bias, atol=1e-5)


# The base around it.


def test_the_base_is_frozen_and_quiet(base: Base, any_folder: Path) -> None:
    parts = [base.backbone, *([base.lm_head] if base.decoder else [])]
    for part in parts:
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())
    heads = 2 if "llama" in any_folder.name else 4
    assert [(layer.kv_heads, layer.head_width) for layer in base.layers] == [(heads, 8)] * 2
    assert base.hidden_width == 32 and base.device == torch.device("cpu")
    assert base.embeddings.weight.shape[1] == 32


@pytest.mark.parametrize("kind", ["input", "key-value"])
def test_gradients_reach_every_part_of_a_prompt_and_no_part_of_the_base(base: Base, kind: str) -> None:
    prompt = {name: tensor.requires_grad_() for name, tensor in prompt_for(base, kind).items()}
    ids, mask = padded(ROWS)
    pooled(hidden_states(base, ids, mask, prompt), mask, base.pooling).pow(2).sum().backward()
    for tensor in prompt.values():
        assert tensor.grad is not None
        assert bool((tensor.grad.abs().amax(-1) > 0).all())  # each layer, head and token of it
    assert all(parameter.grad is None for parameter in base.backbone.parameters())


def test_a_prefix_is_gone_after_an_exception(base: Base) -> None:
    before = alone(base, ROWS[0], {})
    ids, mask = padded([[10**6]])
    with pytest.raises(IndexError):
        hidden_states(base, ids, mask, prompt_for(base, "key-value"))
    short = {name: tensor[:1] for name, tensor in prompt_for(base, "key-value").items()}
    with pytest.raises(ValueError, match="zip"):
        alone(base, ROWS[0], short)
    assert all(layer.module.soft_prefix is None for layer in base.layers)
    assert torch.equal(alone(base, ROWS[0], {}), before)


def test_two_copies_of_the_file_keep_to_themselves(any_folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(name := "pipelines.inference.a_copy", str(forward.__file__))
    assert spec is not None and spec.loader is not None
    copy = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(copy)
        bases = [forward.load_base(any_folder), copy.load_base(any_folder)]
        prompts = [prompt_for(bases[0], "key-value", seed) for seed in (3, 4)]
        wanted = [alone(bases[0], ROWS[0], prompt) for prompt in prompts]
        with copy._prefixed(bases[1], prompts[1]):
            assert torch.equal(alone(bases[0], ROWS[0], prompts[0]), wanted[0])
        assert [len(base.layers) for base in bases] == [2, 2]
        with torch.no_grad():
            assert torch.equal(copy.hidden_states(bases[1], *padded(ROWS[:1]), prompts[1])[0], wanted[1])
    finally:
        del sys.modules[name]


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5Config(vocab_size=50).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is the encoder-decoder 't5'; this version steers encoders .* and decoders"):
        load_base(tmp_path)


def test_weights_in_a_pickle_are_not_read(bert_folder: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(bert_folder)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_base(tmp_path)


def test_padding_comes_last() -> None:
    ids, mask = padded([[4, 5], [6, 7, 8]], pad=9)
    assert ids.tolist() == [[4, 5, 9], [6, 7, 8]] and mask.tolist() == [[1, 1, 0], [1, 1, 1]]
