"""The forward pass against naive ones: what is equal in mathematics is equal in numbers, on every architecture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
)

from pipelines.inference import forward
from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import (
    class_scores,
    encoding,
    hidden_states,
    padded,
    pooled,
    read_once,
    states_at,
    states_from,
)

P = 3
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]
KINDS = ["input", "key-value", "late", "gate", "offsets", "generator"]
# Llama's norms and rotary angles, and T5's norms, are float32 in any case.
TOLERANCE = {"bert": 1e-10, "gpt2": 1e-10, "llama": 1e-5, "qwen2": 1e-5, "t5": 1e-5, "bart": 1e-10}


def close(base: Base, left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


def prompt_for(base: Base, kind: str, seed: int = 3) -> dict[str, Tensor]:
    """A prompt of P tokens with entries of N(0, 1), in the base's precision."""
    generator = torch.Generator().manual_seed(seed)
    layer, d = base.layers[0], base.hidden_width
    networks = {
        f"gate_{name}_{part}": shape
        for name, rows in {"u": P, "v": d}.items()
        for part, shape in {"in": (5, d), "in_bias": (5,), "out": (rows * 2, 5), "out_bias": (rows * 2,)}.items()
    }
    layers = len(base.layers)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "input": {"embeddings": (P, d)},
        "key-value": dict.fromkeys(("keys", "values"), (len(base.layers), layer.kv_heads, P, layer.head_width)),
        "late": {"layer_1": (P, d)},
        "gate": {"embeddings": (P, d), **networks},
        "offsets": {"embeddings": (P, d), "offsets_a": (6, 2), "offsets_b": (2, d)},  # some rows are longer than 6
        "generator": {
            "pool_down": (layers, 2, d),
            "pool_down_bias": (layers, 2),
            "pool_queries": (layers, P, 2),
            "pool_up": (layers, d, 2),
            "pool_up_bias": (layers, d),
        },
    }
    dtype = base.embeddings.weight.dtype
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes[kind].items()}


def alone(base: Base, row: list[int], prompt: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return hidden_states(base, *padded([row]), prompt)[0]


# Batches and padding.


@pytest.mark.parametrize("any_folder", TOLERANCE, indirect=True)
@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("pad", [0, 13])
@torch.no_grad()
def test_padding_changes_nothing(base: Base, kind: str, pad: int) -> None:
    prompt = prompt_for(base, kind)
    together = hidden_states(base, *padded(ROWS, pad), prompt)
    for row, states in zip(ROWS, together, strict=True):
        assert close(base, states[: len(row)], alone(base, row, prompt))


@pytest.mark.parametrize("kind", ["none", *KINDS])
@torch.no_grad()
def test_eight_rows_of_one_length_are_eight_batches_of_one(base: Base, kind: str) -> None:
    prompt = prompt_for(base, kind)
    rows = torch.randint(5, 90, (8, 7), generator=torch.Generator().manual_seed(1)).tolist()
    together = hidden_states(base, *padded(rows), prompt)
    assert together.shape == (8, 7, base.hidden_width)
    for row, states in zip(rows, together, strict=True):
        assert close(base, states, alone(base, row, prompt))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_prompt_matters(base: Base, kind: str) -> None:
    ids, mask = padded(ROWS)
    states = [
        hidden_states(base, ids, mask, prompt) for prompt in ({}, prompt_for(base, kind), prompt_for(base, kind, 4))
    ]
    assert all(float((a - b).abs().max()) > 0.1 for a, b in [(states[0], states[1]), (states[1], states[2])])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bf16_stays_near_fp32(any_folder: Path, kind: str) -> None:
    base = load_base(any_folder)
    prompt = {name: tensor * 0.1 for name, tensor in prompt_for(base, kind).items()}
    exact = hidden_states(base, *padded(ROWS[:1]), prompt)
    with torch.autocast("cpu", torch.bfloat16):
        rough = hidden_states(base, *padded(ROWS[:1]), prompt).float()
    near = 0.1 if base.backbone.config.model_type == "t5" else 0.05  # T5 divides no scores, so they round coarser
    assert 0 < float((rough - exact).abs().max()) < near * float(exact.abs().max())


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_training_and_serving_compute_the_same(base: Base, kind: str) -> None:
    """Attention may take another kernel where gradients are wanted."""
    prompt, (ids, mask) = prompt_for(base, kind), padded(ROWS)
    with torch.no_grad():
        served = hidden_states(base, ids, mask, prompt)
    for parameter in base.backbone.parameters():
        parameter.requires_grad_(True)
    trained = hidden_states(base, ids, mask, prompt)
    assert trained.requires_grad and close(base, trained[mask == 1], served[mask == 1])


# Against the model itself, in transformers' plain attention.


def reference(folder: Path) -> Any:
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    return model.get_encoder() if model.config.is_encoder_decoder else model


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


@pytest.mark.parametrize("kind", ["none", *KINDS])
@torch.no_grad()
def test_a_second_segment_has_the_token_types_of_its_tokenizer(
    kind: str, doubled: Callable[[Path], Base], bert_folder: Path
) -> None:
    base, model, prompt = doubled(bert_folder), reference(bert_folder), {}
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    row = tokenizer("my invoice again", "please help", return_tensors="pt", return_token_type_ids=True)
    ids, types = row["input_ids"], row["token_type_ids"]
    assert set(types[0].tolist()) == {0, 1}
    vectors = model.get_input_embeddings()(ids)
    if kind == "input":
        prompt = prompt_for(base, kind)
        vectors = torch.cat([prompt["embeddings"][None], vectors], dim=1)
        types = torch.nn.functional.pad(types, (P, 0))
    wanted = model(inputs_embeds=vectors, token_type_ids=types).last_hidden_state[0, -ids.shape[1] :]
    other = padded([ids[0].tolist(), [5] * 20])  # padding comes after the last separator
    assert close(base, hidden_states(base, *other, prompt)[0, : ids.shape[1]], wanted)
    assert not close(base, model(inputs_embeds=vectors).last_hidden_state[0, -ids.shape[1] :], wanted)


@pytest.mark.parametrize("rows", [ROWS, [[5, 9, 12, 7], [8, 6, 11, 10]]], ids=["padded", "even"])
@torch.no_grad()
def test_a_late_prompt_stands_before_what_the_layers_below_made_of_the_text(
    base: Base, any_folder: Path, rows: list[list[int]]
) -> None:
    """Against the model cut in two: all of it for the layers below, the rest of its list of layers for those above."""
    ids, mask = padded(rows)
    model = reference(any_folder)
    model.config.use_cache = False  # a cache counts layers
    prompt = prompt_for(base, "late")
    below = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1]
    assert close(base, states_at(base, ids, mask, 1)[mask == 1], below[mask == 1])
    if base.backbone.config.model_type == "bert":
        model.embeddings.forward = lambda inputs_embeds, **_: inputs_embeds
        model.encoder.layer = model.encoder.layer[1:]
    elif base.backbone.config.model_type == "gpt2":
        model.wpe.weight.zero_()
        model.h, model.config.num_hidden_layers = model.h[1:], 1
    elif base.backbone.config.model_type == "bart":
        model.embed_positions.weight.zero_()
        model.layers, model.layernorm_embedding = model.layers[1:], nn.Identity()
    elif base.backbone.config.model_type == "t5":
        first, second = (each.layer[0].SelfAttention for each in model.block)
        second.relative_attention_bias, second.has_relative_attention_bias = first.relative_attention_bias, True
        model.block = model.block[1:]
    else:
        model.layers, model.config.num_hidden_layers = model.layers[1:], 1
    vectors = torch.cat([prompt["layer_1"].expand(len(ids), -1, -1), below], dim=1)
    seen = torch.cat([torch.ones(len(ids), P, dtype=torch.long), mask], dim=1)
    wanted = model(inputs_embeds=vectors, attention_mask=seen).last_hidden_state[:, P:]
    assert close(base, hidden_states(base, ids, mask, prompt)[mask == 1], wanted[mask == 1])


def test_what_a_late_prompt_stands_before_is_computed_once(base: Base) -> None:
    """Kept for other prompts and other batches, and no gradient asks the layers below anything."""
    kept = [states_at(base, *padded([row]), 1)[0] for row in ROWS]
    assert not any(states.requires_grad for states in kept)
    again, mask = nn.utils.rnn.pad_sequence(kept, batch_first=True), padded(ROWS)[1]
    for seed in (3, 4):
        vectors = prompt_for(base, "late", seed)["layer_1"]
        wanted = hidden_states(base, *padded(ROWS), {"layer_1": vectors})
        assert close(base, states_from(base, again, mask, 1, vectors)[mask == 1], wanted[mask == 1])
    ran: list[int] = []
    for number, layer in enumerate(base.layers):
        layer.module.register_forward_hook(lambda *_, number=number: ran.append(number))
    states_at(base, *padded(ROWS), 1), states_from(base, again, mask, 1, vectors)
    assert ran == [0, 1], "each half leaves the other's layers out"
    own = torch.stack([prompt_for(base, "late", seed)["layer_1"] for seed in range(len(ROWS))])  # one for each row
    together = states_from(base, again, mask, 1, own)
    for row, vectors, states in zip(ROWS, own, together, strict=True):
        assert close(base, states[: len(row)], alone(base, row, {"layer_1": vectors}))


@torch.no_grad()
def test_a_gate_opens_by_what_the_base_makes_of_each_text(base: Base) -> None:
    """Row by row, element by element, as the formula is written."""
    prompt, (ids, mask) = prompt_for(base, "gate"), padded(ROWS)
    for row, states in zip(ROWS, hidden_states(base, ids, mask, prompt), strict=True):
        plain = alone(base, row, {})
        read = plain[-1] if base.decoder else plain.mean(0)
        assert close(base, encoding(base, *padded([row]))[0], read)
        u, v = (
            prompt[f"gate_{name}_out"] @ torch.tanh(prompt[f"gate_{name}_in"] @ read + prompt[f"gate_{name}_in_bias"])
            + prompt[f"gate_{name}_out_bias"]
            for name in "uv"
        )
        vectors = torch.empty(P, base.hidden_width, dtype=u.dtype)
        for token in range(P):
            for place in range(base.hidden_width):
                gate = torch.sigmoid(u[2 * token : 2 * token + 2] @ v[2 * place : 2 * place + 2])
                vectors[token, place] = prompt["embeddings"][token, place] * gate
        assert close(base, states[: len(row)], alone(base, row, {"embeddings": vectors}))


@torch.no_grad()
def test_every_layer_reads_a_prompt_made_of_the_text_before_it(base: Base, any_folder: Path) -> None:
    """Against the model run layer by layer, each on the prompt that the formula gives, written out for one row."""
    prompt, model = prompt_for(base, "generator"), reference(any_folder)
    kind = base.backbone.config.model_type
    names = {"bert": "encoder.layer", "gpt2": "h", "t5": "block"}
    layers = model.get_submodule(names.get(kind, "layers"))
    made: list[Tensor] = []

    def before(layer: int) -> Any:
        def hook(_: Any, given: tuple[Any, ...]) -> Any:
            text = given[0][0, P:]
            inner = text @ prompt["pool_down"][layer].T + prompt["pool_down_bias"][layer]
            vectors = []
            for query in prompt["pool_queries"][layer]:
                summary = (inner @ query / 2**0.5).softmax(0) @ inner
                vectors.append(prompt["pool_up"][layer] @ nn.functional.gelu(summary) + prompt["pool_up_bias"][layer])
            made.append(torch.stack(vectors))
            return torch.cat([made[-1], text])[None], *given[1:]

        return hook

    for place, layer in enumerate(layers):
        layer.register_forward_pre_hook(before(place))
    for row in ROWS:
        ids = torch.tensor([[0] * P + row])  # whatever stands in the prompt's places is not read
        wanted = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, P:]
        assert close(base, alone(base, row, prompt), wanted)
    assert len(made) == 2 * len(ROWS) and not torch.allclose(made[0], made[2], atol=0.01), "each text has its own"


@torch.no_grad()
def test_offsets_are_added_to_the_texts_embeddings_by_position(base: Base, any_folder: Path) -> None:
    prompt, model = prompt_for(base, "offsets"), reference(any_folder)
    added = prompt["offsets_a"] @ prompt["offsets_b"]
    for row in ROWS:
        text = model.get_input_embeddings()(torch.tensor(row)).clone()
        for place in range(min(6, len(row))):
            text[place] += added[place]
        vectors = torch.cat([prompt["embeddings"], text])[None]
        wanted = model(inputs_embeds=vectors, attention_mask=torch.ones(1, P + len(row))).last_hidden_state[0, P:]
        assert close(base, alone(base, row, prompt), wanted)


def with_cache(model: Any, ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor]) -> Any:
    """The model over a cache that holds the prompt's keys and values for every row."""
    cache = DynamicCache()
    for number, (key, value) in enumerate(zip(prompt["keys"], prompt["values"], strict=True)):
        cache.update(key.expand(len(ids), -1, -1, -1), value.expand(len(ids), -1, -1, -1), number)
    seen = torch.cat([mask.new_ones(len(ids), P), mask], dim=1)
    return model(input_ids=ids, attention_mask=seen, past_key_values=cache)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
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


@pytest.mark.parametrize("kind", ["key-value", "late", "gate", "offsets", "generator"])
def test_other_prompts_are_not_read_once(base: Base, kind: str) -> None:
    """One of keys is read already, and the others depend on the text or enter behind its start."""
    prompt = prompt_for(base, kind)
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


@pytest.mark.parametrize(
    ("name", "projections"), [("bert", ("key", "value")), ("t5", ("k", "v")), ("bart", ("k_proj", "v_proj"))]
)
@torch.no_grad()
def test_an_encoders_prefix_is_text_that_is_only_attended_to(
    name: str, projections: tuple[str, str], doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    """Attention has no order: in [text, more] the text sees what it sees alone over the keys and values of `more`.

    T5's has one, by a bias on scores; there the bias to `more` is taken away, as a prefix has none.
    """
    base, text, more = doubled(request.getfixturevalue(f"{name}_folder")), ROWS[0], [31, 16, 25]
    if name == "t5":
        first: Any = base.layers[0].module  # the other layers use its bias
        biased = first.compute_bias
        places = torch.arange(len(text + more))
        first.compute_bias = lambda *given, **more: torch.where(
            places[: given[1]] < len(text), biased(*given, **more), 0.0
        )
    found: dict[str, list[Tensor]] = {"keys": [], "values": []}
    hooks = [
        getattr(layer.module, projection).register_forward_hook(lambda _, __, made, name=name: found[name].append(made))
        for layer in base.layers
        for name, projection in zip(found, projections, strict=True)
    ]
    wanted = alone(base, text + more, {})[: len(text)]
    for hook in hooks:
        hook.remove()
    tensors = {
        name: torch.cat([made[:, len(text) :].unflatten(2, (4, 8)).transpose(1, 2) for made in layers])
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
    kind = base.backbone.config.model_type
    assert base.pooling == ("last" if kind in ("gpt2", "llama") else "mean") == ("last" if base.decoder else "mean")
    assert (base.seq2seq is not None) == (kind in ("t5", "bart"))
    assert (base.lm_head is None) == (kind == "bert")


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
    parts = [base.backbone, base.whole, *([base.lm_head] if base.lm_head is not None else [])]
    for part in parts:
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())
    heads = 2 if "llama" in any_folder.name else 4
    assert [(layer.kv_heads, layer.head_width) for layer in base.layers] == [(heads, 8)] * 2
    assert base.hidden_width == 32 and base.device == torch.device("cpu")
    assert base.embeddings.weight.shape[1] == 32


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_part_of_a_prompt_and_no_part_of_the_base(base: Base, kind: str) -> None:
    prompt = {name: tensor.requires_grad_() for name, tensor in prompt_for(base, kind).items()}
    ids, mask = padded(ROWS)
    pooled(hidden_states(base, ids, mask, prompt), mask, base.pooling).pow(2).sum().backward()
    for tensor in prompt.values():
        assert tensor.grad is not None
        assert bool((tensor.grad.abs().amax(-1) > 0).all())  # each layer, head, token and row of it
    assert all(parameter.grad is None for parameter in base.backbone.parameters())


def test_a_prefix_is_gone_after_an_exception(base: Base) -> None:
    before = alone(base, ROWS[0], {})
    ids, mask = padded([[10**6]])
    with pytest.raises(IndexError):
        hidden_states(base, ids, mask, prompt_for(base, "key-value"))
    short = {name: tensor[:1] for name, tensor in prompt_for(base, "key-value").items()}
    with pytest.raises(ValueError, match="zip"):
        alone(base, ROWS[0], short)
    with pytest.raises(IndexError):
        hidden_states(base, ids, mask, prompt_for(base, "late"))
    with pytest.raises(RuntimeError):
        alone(base, ROWS[0], {"layer_1": torch.zeros(P, 31)})
    assert all(layer.module.soft_prefix is None for layer in base.layers)
    assert torch.equal(alone(base, ROWS[0], {}), before)


def test_two_copies_of_the_package_keep_to_themselves(any_folder: Path) -> None:
    name = "pipelines.a_copy_of_inference"  # as the code in a packaged model is one
    folder = Path(str(forward.__file__)).parent
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        attention, base, copy = (importlib.import_module(f"{name}.{part}") for part in ("attention", "base", "forward"))
        bases = [load_base(any_folder), base.load_base(any_folder)]
        prompts = [prompt_for(bases[0], "key-value", seed) for seed in (3, 4)]
        wanted = [alone(bases[0], ROWS[0], prompt) for prompt in prompts]
        with attention.prefixed(bases[1].attentions, prompts[1]["keys"], prompts[1]["values"]):
            assert torch.equal(alone(bases[0], ROWS[0], prompts[0]), wanted[0])
        assert [len(base.layers) for base in bases] == [2, 2]
        with torch.no_grad():
            assert torch.equal(copy.hidden_states(bases[1], *padded(ROWS[:1]), prompts[1])[0], wanted[1])
    finally:
        for module in [module for module in sys.modules if module.startswith(name)]:
            del sys.modules[module]


def test_an_encoder_decoder_of_sounds_is_refused(tmp_path: Path) -> None:
    WhisperConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="WhisperConfig"):
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
