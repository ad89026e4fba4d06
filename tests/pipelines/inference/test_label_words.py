"""Label words against the base itself, which reads each of them written out: the chain rule, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pipelines.inference.base import Base, load_base
from pipelines.inference.forward import class_scores, encoding, padded
from pipelines.inference.instance import gated
from pipelines.inference.label_words import word_scores

P = 3
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]
WORDS = [[44], [7, 20], [7, 21], [11, 12, 13]]  # two that differ in their last token only
TOLERANCE = {"gpt2": 1e-9, "llama": 1e-5, "t5": 1e-4, "bart": 1e-9}  # some layers of Llama and T5 are float32
OPENING = {"t5": [0], "bart": [1, 0]}


@pytest.fixture(params=["gpt2", "llama", "t5", "bart"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Each of the bases that have a language-model head."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


@pytest.fixture
def base(doubled: Callable[[Path], Base], folder: Path) -> Base:
    """The same, in float64."""
    return doubled(folder)


def head_for(base: Base, words: list[list[int]] = WORDS) -> dict[str, Tensor]:
    longest = max(map(len, words))
    head = {"word_ids": torch.tensor([[*word, *[-1] * (longest - len(word))] for word in words])}
    if longest == 1:
        head["word_ids"] = head["word_ids"][:, 0]
    if base.seq2seq is not None:
        head["opening"] = torch.tensor(OPENING[base.backbone.config.model_type])
    return head


def prompt_for(base: Base, kind: str) -> dict[str, Tensor]:
    generator, layer = torch.Generator().manual_seed(3), base.layers[0]
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "input": {"embeddings": (P, base.hidden_width)},
        "decoder": {"in_decoder": (P, base.hidden_width)},
        "key-value": dict.fromkeys(("keys", "values"), (len(base.layers), layer.kv_heads, P, layer.head_width)),
    }
    return {name: torch.randn(shape, generator=generator).double() for name, shape in shapes[kind].items()}


def written_out(model: Any, row: list[int], word: list[int], opening: list[int] | None, prompt: Tensor) -> float:
    """log P(word | prompt, row), from the whole model's logits in transformers' plain attention."""
    text = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(row))])[None]
    if opening is not None:
        logits = model(inputs_embeds=text, decoder_input_ids=torch.tensor([opening + word])).logits[0]
        start = len(opening) - 1
    else:
        said = model.get_input_embeddings()(torch.tensor([word]))
        logits, start = model(inputs_embeds=torch.cat([text, said], dim=1)).logits[0], text.shape[1] - 1
    steps = logits[start : start + len(word)].log_softmax(-1)
    return sum(float(step[token]) for step, token in zip(steps, word, strict=True))


@pytest.mark.parametrize("kind", ["none", "input"])
@pytest.mark.parametrize("words", [WORDS, [[44], [7], [20]]], ids=["several tokens", "one token"])
@torch.no_grad()
def test_a_score_is_the_words_log_probability(base: Base, folder: Path, kind: str, words: list[list[int]]) -> None:
    auto: Any = AutoModelForCausalLM if base.seq2seq is None else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder, attn_implementation="eager").double().eval()
    prompt, opening = prompt_for(base, kind), OPENING.get(model.config.model_type)
    vectors = prompt.get("embeddings", torch.zeros(0, base.hidden_width, dtype=torch.float64))
    scores = [[written_out(model, row, word, opening, vectors) for word in words] for row in ROWS]
    wanted = torch.tensor(scores, dtype=torch.float64)
    found = word_scores(base, *padded(ROWS), prompt, head_for(base, words))
    assert found.dtype == torch.float64 and float(wanted.std()) > 0.1
    if base.seq2seq is None and len(words[0]) == len(words[1]) == 1:  # logits, which the softmax takes as they are
        found, wanted = found.log_softmax(1), wanted.log_softmax(1)
    assert torch.allclose(found, wanted, rtol=0, atol=TOLERANCE[model.config.model_type])


@pytest.mark.parametrize("kind", ["none", "input", "key-value"])
@torch.no_grad()
def test_neither_padding_nor_company_changes_a_score(base: Base, kind: str) -> None:
    prompt, head = prompt_for(base, kind), head_for(base)
    rows = [*ROWS, *ROWS[:3]]
    together = word_scores(base, *padded(rows, pad=13), prompt, head)
    alone = torch.cat([word_scores(base, *padded([row]), prompt, head) for row in rows])
    assert torch.allclose(together, alone, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])
    if kind != "none":
        assert float((together - word_scores(base, *padded(rows), {}, head)).abs().max()) > 0.1  # it matters


@torch.no_grad()
def test_words_of_one_token_score_alike_however_they_are_written(base: Base) -> None:
    """As [C], and as [C, 1]: the same softmax."""
    head = head_for(base, [[44], [7], [20]])
    wide: Mapping[str, Tensor] = {**head, "word_ids": head["word_ids"][:, None]}
    shares = [word_scores(base, *padded(ROWS), {}, each).softmax(1) for each in (head, wide)]
    assert torch.allclose(*shares, rtol=0, atol=TOLERANCE[base.backbone.config.model_type])


@pytest.mark.parametrize("kind", ["input", "key-value"])
def test_gradients_reach_every_part_of_a_prompt(base: Base, kind: str) -> None:
    prompt = {name: tensor.requires_grad_() for name, tensor in prompt_for(base, kind).items()}
    word_scores(base, *padded(ROWS), prompt, head_for(base)).log_softmax(1)[:, 0].sum().backward()
    for tensor in prompt.values():
        assert tensor.grad is not None and bool((tensor.grad.abs().amax(-1) > 0).all())
    assert all(parameter.grad is None for parameter in base.whole.parameters())


@pytest.mark.parametrize("name", ["t5", "bart"])
@torch.no_grad()
def test_an_encoder_decoders_input_prompt_is_pefts(
    name: str, doubled: Callable[[Path], Base], request: pytest.FixtureRequest
) -> None:
    from peft import PromptTuningConfig, get_peft_model

    folder = request.getfixturevalue(f"{name}_folder")
    base = doubled(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").double().eval()
    config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, num_transformer_submodules=1)
    peft = get_peft_model(model, config).double().eval()
    prompt, head = prompt_for(base, "input"), head_for(base, [[44], [7], [20]])
    peft.prompt_encoder["default"].embedding.weight.copy_(prompt["embeddings"])
    ids, mask = padded(ROWS)
    opening = torch.tensor([OPENING[name]] * len(ROWS))
    wanted = peft(input_ids=ids, attention_mask=mask, decoder_input_ids=opening).logits[:, -1].log_softmax(-1)
    found = word_scores(base, ids, mask, prompt, head)
    assert torch.allclose(found, wanted[:, head["word_ids"]], rtol=0, atol=TOLERANCE[name])


def test_features_alone_do_not_score_words_that_must_be_read(llama_folder: Path, t5_folder: Path) -> None:
    for folder, words in ((llama_folder, [[1, 2], [3, 4]]), (t5_folder, [5, 6])):
        with pytest.raises(ValueError, match="use word_scores"):
            class_scores(load_base(folder), torch.zeros(1, 32), {"word_ids": torch.tensor(words)})


def test_a_language_model_is_needed(bert_folder: Path) -> None:
    for words in ([7, 9], [[7, 9], [8, 1]]):
        with pytest.raises(ValueError, match="needs a base with a language-model head"):
            word_scores(load_base(bert_folder), *padded(ROWS), {}, {"word_ids": torch.tensor(words)})


@torch.no_grad()
def test_a_gate_is_opened_by_the_text_alone(doubled: Callable[[Path], Base], gpt2_folder: Path) -> None:
    """What the base says of a label word has no part in its own prompt."""
    base, generator = doubled(gpt2_folder), torch.Generator().manual_seed(3)
    shapes = {"embeddings": (P, 32), "gate_u_in": (5, 32), "gate_u_out": (P * 2, 5), "gate_v_in": (5, 32)}
    shapes |= {"gate_v_out": (64, 5), "gate_u_in_bias": (5,), "gate_u_out_bias": (P * 2,)}
    shapes |= {"gate_v_in_bias": (5,), "gate_v_out_bias": (64,)}
    prompt = {name: torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}
    found = word_scores(base, *padded(ROWS), prompt, head_for(base))
    for row, scores in zip(ROWS, found, strict=True):
        ids, mask = padded([row])
        own = {"embeddings": gated(prompt, encoding(base, ids, mask))[0]}
        assert torch.allclose(word_scores(base, ids, mask, own, head_for(base))[0], scores, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_prompt_in_the_decoder_stands_before_what_is_said(base: Base) -> None:
    """Against the model itself, whose decoder reads the prompt, its opening and the word as embeddings."""
    if base.seq2seq is None:
        pytest.skip("no encoder-decoder")
    prompt, head = prompt_for(base, "decoder"), head_for(base)
    found = word_scores(base, *padded(ROWS), prompt, head)
    embed, opening = base.seq2seq.get_decoder().get_input_embeddings(), head["opening"].tolist()
    for row, scores in zip(ROWS, found, strict=True):
        for word, score in zip(WORDS, scores, strict=True):
            said = torch.cat([prompt["in_decoder"], embed(torch.tensor(opening + word))])[None]
            logits = base.seq2seq(input_ids=torch.tensor([row]), decoder_inputs_embeds=said).logits[0]
            start = P + len(opening) - 1
            steps = logits[start : start + len(word)].log_softmax(-1)
            wanted = sum(float(step[token]) for step, token in zip(steps, word, strict=True))
            assert float(score) == pytest.approx(wanted, abs=TOLERANCE[base.backbone.config.model_type])
    assert float((found - word_scores(base, *padded(ROWS), {}, head)).abs().max()) > 0.1  # it matters
