"""PEFT folders read back: our own bit by bit, PEFT's own with its answers; the rest is refused and says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    T5Config,
)

from pipelines.digests import digest_folder
from pipelines.errors import ArtifactError, BaseModelError
from pipelines.inference.base import load_base
from pipelines.inference.forward import class_scores, hidden_states, padded, pooled
from pipelines.inference.label_words import word_scores
from pipelines.interchange.export import export
from pipelines.interchange.peft import flattened, read_peft, unflattened
from pipelines.prompts.artifact import read_prompt

WORDS = ("password", "invoice")
FIRST_WORDS = ("my", "please")  # one token each where a text begins, which is how an encoder-decoder says them
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]


@pytest.mark.parametrize(
    ("base", "method", "words"),
    [
        *[
            (base, method, words)
            for base, words in (("bert", None), ("gpt2", WORDS), ("llama", None), ("llama", WORDS))
            for method in ("prompt-tuning", "p-tuning-v2")
        ],
        ("t5", "prompt-tuning", FIRST_WORDS),
        ("bart", "prompt-tuning", FIRST_WORDS),
    ],
)
def test_there_and_back_is_bit_equal(prompt_on: Any, tmp_path: Path, base: str, method: str, words: Any) -> None:
    minted = prompt_on(base, method, words)
    export(minted.folder, minted.base_folder, "peft", tmp_path / "out")
    prompt, back = read_prompt(minted.folder), read_peft(tmp_path / "out", minted.base_folder)
    for found, wanted in ((back.tensors, prompt.tensors), (back.head, prompt.head)):
        assert found.keys() == wanted.keys()
        assert all(
            torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted
        )
    assert back.base["digest"] == digest_folder(minted.base_folder) == prompt.card["base"]["digest"]
    assert back.base["files"] == prompt.card["base"]["files"]


@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(0, 2**32))
def test_folding_and_unfolding_lose_nothing(shape: tuple[int, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, *shape, generator=generator)
    flat = flattened(keys, values)
    assert flat.shape == (shape[2], 2 * shape[0] * shape[1] * shape[3]) and flat.is_contiguous()
    back = unflattened(flat, shape)
    assert torch.equal(back[0], keys) and torch.equal(back[1], values)


# What PEFT itself saved.


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Any]:
    """Makes an adapter with PEFT on a base, saves it, and gives the model: `saved(base_folder, config, auto)`."""

    def saved(base_folder: Path, config: Any, auto: Any = AutoModelForCausalLM, **options: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = peft.get_peft_model(auto.from_pretrained(base_folder, **options), config).eval()
        model.save_pretrained(tmp_path / "adapter")
        return model

    return saved


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Where `saved` puts it."""
    return tmp_path / "adapter"


PEFT_METHODS = {
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "p-tuning mlp": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, task_type="CAUSAL_LM"),
    "p-tuning lstm": peft.PromptEncoderConfig(
        num_virtual_tokens=3, encoder_hidden_size=8, encoder_reparameterization_type="LSTM", task_type="CAUSAL_LM"
    ),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prefix mlp": peft.PrefixTuningConfig(
        num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("method", PEFT_METHODS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_an_adapter_of_peft_answers_as_it_did_there(
    request: pytest.FixtureRequest, saved: Any, adapter: Path, method: str, name: str
) -> None:
    folder: Path = request.getfixturevalue(f"{name}_folder")
    config = PEFT_METHODS[method]
    model = saved(folder, type(config)(**{key: value for key, value in config.to_dict().items() if value is not None}))
    imported, base = read_peft(adapter, folder), load_base(folder)
    assert imported.head == {} and imported.base["digest"] == digest_folder(folder)
    ids, mask = padded(ROWS)
    ours = base.lm_head(hidden_states(base, ids, mask, imported.tensors))
    theirs = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    assert float((ours - theirs)[mask == 1].abs().max()) < 1e-4
    bare = base.lm_head(hidden_states(base, ids, mask, {}))
    assert float((ours - bare)[mask == 1].abs().max()) > 0.1, "the prompt matters"


@torch.no_grad()
def test_an_encoders_input_prompt_answers_as_it_did_there(bert_folder: Path, saved: Any, adapter: Path) -> None:
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    model = saved(bert_folder, config, AutoModel)
    ids, mask = padded(ROWS)
    ours = hidden_states(load_base(bert_folder), ids, mask, read_peft(adapter, bert_folder).tensors)
    theirs = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 3:]
    assert float((ours - theirs)[mask == 1].abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PromptEncoderConfig])
@torch.no_grad()
def test_a_prompt_in_the_encoder_of_an_encoder_decoder_answers_as_it_did_there(
    request: pytest.FixtureRequest, saved: Any, adapter: Path, name: str, kind: Any
) -> None:
    folder: Path = request.getfixturevalue(f"{name}_folder")
    hidden = {"encoder_hidden_size": 8} if kind is peft.PromptEncoderConfig else {}
    config = kind(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM", num_transformer_submodules=1, **hidden)
    model = saved(folder, config, AutoModelForSeq2SeqLM)
    imported, base = read_peft(adapter, folder), load_base(folder)
    ids, mask = padded(ROWS)
    head = {"word_ids": torch.arange(40), "opening": torch.tensor([0, 5])}
    theirs = model(input_ids=ids, attention_mask=mask, decoder_input_ids=head["opening"].expand(len(ids), -1)).logits
    ours, bare = (word_scores(base, ids, mask, tensors, head) for tensors in (imported.tensors, {}))
    assert float((ours - theirs[:, -1].log_softmax(-1)[:, :40]).abs().max()) < 1e-4
    assert float((ours - bare).abs().max()) > 0.01, "the prompt matters"


def test_twice_the_vectors_are_refused(t5_folder: Path, saved: Any, adapter: Path) -> None:
    """PEFT's default on an encoder-decoder."""
    saved(t5_folder, peft.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM"), AutoModelForSeq2SeqLM)
    with pytest.raises(ArtifactError, match=r"'SEQ_2_SEQ_LM' with 2 transformer submodules .*'SEQ_2_SEQ_LM' with 1"):
        read_peft(adapter, t5_folder)


@pytest.mark.parametrize("kind", [peft.PrefixTuningConfig, peft.PromptTuningConfig])
@torch.no_grad()
def test_a_decoders_classifier_comes_along(llama_folder: Path, saved: Any, adapter: Path, kind: Any) -> None:
    """P-Tuning v2 as PEFT has it: a prefix and a linear head on the last position."""
    config = kind(num_virtual_tokens=3, task_type="SEQ_CLS")
    model = saved(llama_folder, config, AutoModelForSequenceClassification, num_labels=3)
    imported, base = read_peft(adapter, llama_folder), load_base(llama_folder)
    assert imported.head["weight"].shape == (3, 32) and torch.equal(imported.head["bias"], torch.zeros(3))
    for row in ROWS:
        ids, mask = padded([row])
        ours = class_scores(base, pooled(hidden_states(base, ids, mask, imported.tensors), mask, "last"), imported.head)
        assert float((ours - model(input_ids=ids, attention_mask=mask).logits).abs().max()) < 1e-5


# Refusals.


@pytest.mark.parametrize("kind", [peft.PrefixTuningConfig, peft.PromptTuningConfig])
def test_an_encoders_classifier_is_refused(bert_folder: Path, saved: Any, adapter: Path, kind: Any) -> None:
    saved(bert_folder, kind(num_virtual_tokens=3, task_type="SEQ_CLS"), AutoModelForSequenceClassification)
    words = (
        "counts an encoder's text positions" if kind is peft.PrefixTuningConfig else "'base_model.classifier.weight'"
    )
    with pytest.raises(ArtifactError, match=f"{words}.*anew"):
        read_peft(adapter, bert_folder)


def test_another_method_is_refused(gpt2_folder: Path, saved: Any, adapter: Path) -> None:
    saved(gpt2_folder, peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))
    with pytest.raises(ArtifactError, match=r"type 'LORA' is no prompt.*'PREFIX_TUNING', 'PROMPT_TUNING', 'P_TUNING'"):
        read_peft(adapter, gpt2_folder)


@pytest.fixture
def prefix(llama_folder: Path, saved: Any, adapter: Path) -> Path:
    """A prefix saved by PEFT for the Llama-like base."""
    saved(llama_folder, peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    return adapter


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_type": "SEQ_2_SEQ_LM"}, "task 'SEQ_2_SEQ_LM' with 1 transformer"),
        ({"task_type": "TOKEN_CLS"}, "task 'TOKEN_CLS'.*'CAUSAL_LM', 'FEATURE_EXTRACTION', 'SEQ_CLS'"),
        ({"num_transformer_submodules": 2}, "with 2 transformer submodules"),
        ({"task_type": "SEQ_2_SEQ_LM", "peft_type": "PROMPT_TUNING"}, "on an encoder-decoder it has to be 'SEQ_2_SEQ"),
        ({"peft_type": "CARTRIDGE"}, "type 'CARTRIDGE' is no prompt"),
        ({"peft_type": None}, "type None is no prompt"),
        ({"num_virtual_tokens": 4}, "'num_virtual_tokens': 4.*It belongs to another base"),
        ({"num_attention_heads": 4}, "'num_attention_heads': 4.*It belongs to another base"),
        ({"num_layers": 1}, "'num_layers': 1.*It belongs to another base"),
        ({"peft_type": "PROMPT_TUNING"}, "'token_dim': 16.*'token_dim': 32.*It belongs to another base"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    llama_folder: Path, prefix: Path, changes: dict[str, Any], words: str
) -> None:
    change_config(prefix, **changes)
    with pytest.raises(ArtifactError, match=words):
        read_peft(prefix, llama_folder)


def test_a_prefix_for_another_base_is_refused(gpt2_folder: Path, prefix: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds \[3, 64\]; this base needs .*\[3, 128\].*name the one"):
        read_peft(prefix, gpt2_folder)


def test_a_pickle_is_refused_and_says_how_to_convert_it(llama_folder: Path, prefix: Path) -> None:
    weights = prefix / "adapter_model.safetensors"
    torch.save(load_file(weights), prefix / "adapter_model.bin")
    assert read_peft(prefix, llama_folder).tensors, "it is not even looked at where safetensors are there"
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"adapter_model.bin' is a pickle.*save_pretrained\(NEW_FOLDER"):
        read_peft(prefix, llama_folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("spoil", ["cut", "emptied", "gone", "foreign"])
def test_a_damaged_file_is_refused(llama_folder: Path, prefix: Path, name: str, spoil: str) -> None:
    data = (prefix / name).read_bytes()
    (prefix / name).unlink()
    if spoil != "gone":
        (prefix / name).write_bytes({"cut": data[:-3], "emptied": b"", "foreign": b"[1, 2, 3]"}[spoil])
    with pytest.raises(ArtifactError, match=f"Cannot read .*{name}.*Fetch the folder again"):
        read_peft(prefix, llama_folder)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.ones(3, 64)}, "has no tensor 'prompt_embeddings'; it has 'weight'"),
        ({"prompt_embeddings": torch.ones(3, 4, 16)}, r"float32 of shape \[3, 4, 16\]"),
        ({"prompt_embeddings": torch.ones(3, 64, dtype=torch.int64)}, "int64 of shape"),
        ({"prompt_embeddings": torch.full((3, 64), torch.nan)}, "finite"),
        ({"prompt_embeddings": torch.ones(3, 64), "base_model.v_head.weight": torch.ones(1)}, "v_head.*cannot express"),
    ],
)
def test_foreign_tensors_are_refused(llama_folder: Path, prefix: Path, tensors: Any, words: str) -> None:
    save_file(tensors, prefix / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match=words):
        read_peft(prefix, llama_folder)


def test_a_base_that_cannot_be_used_is_refused(prefix: Path, tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path / "t5")
    for folder in (tmp_path / "t5", tmp_path / "nowhere"):
        with pytest.raises(BaseModelError, match="Cannot use this base"):
            read_peft(prefix, folder)


# Our own folders are held to what their card says.


@pytest.fixture
def own(prompt_on: Any, tmp_path: Path) -> Path:
    """A key/value prompt of the encoder, exported."""
    minted = prompt_on("bert", "p-tuning-v2")
    export(minted.folder, minted.base_folder, "peft", tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "head.safetensors", "answer.py"])
def test_a_changed_file_of_an_export_is_refused(bert_folder: Path, own: Path, name: str) -> None:
    data = bytearray((own / name).read_bytes())
    data[-2] ^= 1
    (own / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} in .* has SHA-256 .*export the prompt again"):
        read_peft(own, bert_folder)
    (own / name).unlink()
    with pytest.raises(ArtifactError, match=r"SHA-256 \(no such file\)"):
        read_peft(own, bert_folder)


def test_another_base_than_the_exports_is_refused(bert_folder: Path, own: Path, tmp_path: Path) -> None:
    base = shutil.copytree(bert_folder, tmp_path / "base")
    (base / "tokenizer_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"minted on another base.*tokenizer_config.json"):
        read_peft(own, base)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"format": 2}, "has format 2; this version reads format 1"), ({"base": None}, "lacks 'base'")],
)
def test_a_card_of_another_format_is_refused(bert_folder: Path, own: Path, changes: Any, words: str) -> None:
    card = json.loads((own / "promptmint.json").read_text()) | changes
    (own / "promptmint.json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))
    with pytest.raises(ArtifactError, match=words):
        read_peft(own, bert_folder)
