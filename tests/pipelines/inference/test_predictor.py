"""A predictor answers as the model that was minted, or does not load."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mlflow_config.package import copy_code
from pipelines.errors import ArtifactError, BaseModelError, DataError, NotInStore
from pipelines.inference import mixed
from pipelines.inference.forward import padded
from pipelines.inference.predictor import base_from_store, load_predictor
from pipelines.prompts.artifact import read_proof
from pipelines.prompts.methods import PRESETS
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree

Mint = Callable[..., Any]
WORDS = ("password", "invoice")
LONG_WORDS = ("password", "credit card")
BASES = ("bert", "gpt2", "llama", "t5", "bart")
KINDS: list[tuple[str, str, Any]] = [(base, method, None) for base in BASES for method in PRESETS]
KINDS += [("gpt2", "p-tuning-v2", WORDS), ("llama", "prompt-tuning", WORDS), ("llama", "prefix-tuning", LONG_WORDS)]
KINDS += [("gpt2", "late", WORDS), ("llama", "lopa", WORDS), ("gpt2", "dept", LONG_WORDS), ("llama", "iapt", WORDS)]
KINDS += [("qwen2", "p-tuning-v2", None), ("qwen2", "prompt-tuning", WORDS)]
KINDS += [(base, method, words) for base in BASES[3:] for method in PRESETS for words in (WORDS, LONG_WORDS)]


@pytest.fixture
def copied(minted: Any, tmp_path: Path) -> Path:
    """A copy of the minted prompt that may be spoilt."""
    return shutil.copytree(minted.folder, tmp_path / "prompt")


@pytest.mark.parametrize(("base", "method", "words"), KINDS)
def test_it_answers_as_the_minted_model_did(
    mint_on: Mint, tickets: Any, base: str, method: str, words: Any, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base_folder = request.getfixturevalue(f"{base}_folder")
    minted = mint_on(base_folder, method, words)
    texts = [ticket.text for ticket in tickets(13, 9)]
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    # An encoder is folded with gradients on, as minting does: without them an LSTM's last bit is another one.
    folded = {name: tensor.detach() for name, tensor in minted.tuned.eval().prompt().items()}
    monkeypatch.setattr(minted.tuned.prompt, "forward", lambda: folded)
    with torch.no_grad():
        wanted = torch.cat([minted.tuned(*padded([tokenizer(text)["input_ids"][:32]])) for text in texts])
    loaded = load_predictor(minted.folder, base_folder, minted.digest)
    assert torch.equal(torch.cat([loaded.logits([text]) for text in texts]), wanted)
    assert torch.allclose(loaded.logits(texts), wanted, atol=1e-5)  # in one batch sums may be taken in another order
    monkeypatch.setattr(mixed, "BATCH_ROWS", 3)
    assert torch.allclose(loaded.logits(texts), wanted, atol=1e-5)
    assert float((wanted - wanted.mean(0)).abs().max()) > 0.01  # the texts do differ


@pytest.mark.parametrize(
    ("base", "template", "words"),
    [
        ("bert", "{text}{sep}{pair}", None),
        ("gpt2", "{text} and {pair}", WORDS),
        ("t5", "{text}{sep}{pair}", None),
        ("bart", "{text}{sep}{pair}", LONG_WORDS),
    ],
)
def test_it_answers_pairs(
    mint_on: Mint, tickets: Any, base: str, template: str, words: Any, request: pytest.FixtureRequest
) -> None:
    base_folder = request.getfixturevalue(f"{base}_folder")
    minted = mint_on(base_folder, "p-tuning-v2", words, template=template)
    firsts, seconds = ([ticket.text for ticket in tickets(5, seed)] for seed in (9, 4))
    loaded = load_predictor(minted.folder, base_folder, minted.digest)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    both = zip(firsts, seconds, strict=True)
    written = both if "{sep}" in template else [(f"{text} and {pair}",) for text, pair in both]
    rows = [tokenizer(*texts)["input_ids"] for texts in written]
    fits = [len(row) <= 32 for row in rows]
    with torch.no_grad():
        wanted = torch.cat([minted.tuned(*padded([row])) for row in rows])
    assert any(fits) and torch.allclose(loaded.logits(firsts, seconds)[fits], wanted[fits], atol=1e-5)
    assert not torch.allclose(loaded.logits(firsts, seconds), loaded.logits(seconds, firsts), atol=1e-3)
    assert len(loaded.predict(firsts, seconds)) == 5 and len(set(read_proof(minted.folder).pairs or [])) == 8
    with pytest.raises(DataError, match="takes two texts per example, but one came"):
        loaded.predict(firsts)


@pytest.mark.parametrize("method", ["late", "lopa", "dept", "iapt"])
def test_the_code_that_travels_answers_alike(mint_on: Mint, gpt2_folder: Path, tmp_path: Path, method: str) -> None:
    """As a serving host imports it: a copy of the listed files under another name."""
    copy_code(tmp_path / "code")
    name = f"travelled_{method}"
    spec = importlib.util.spec_from_file_location(name, tmp_path / "code/__init__.py", submodule_search_locations=[])
    assert spec is not None and spec.loader is not None and spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(tmp_path / "code"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        minted, texts = mint_on(gpt2_folder, method), ["my refund again", "login"]
        travelled = importlib.import_module(f"{name}.inference.predictor")
        assert Path(travelled.__file__).is_relative_to(tmp_path)
        answers = travelled.load_predictor(minted.folder, gpt2_folder).logits(texts)
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
    assert torch.equal(answers, load_predictor(minted.folder, gpt2_folder).logits(texts))


def test_an_answer_is_the_likeliest_label(minted: Any, tickets: Any) -> None:
    loaded = load_predictor(minted.folder, minted.base_folder)
    texts = [ticket.text for ticket in tickets(6, 2)]
    answers, shares = loaded.predict(texts), loaded.logits(texts).softmax(1)
    for answer, share in zip(answers, shares, strict=True):
        assert list(answer.probabilities) == ["account", "billing"]
        assert list(answer.probabilities.values()) == pytest.approx(share.tolist())
        assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
        assert answer.probability == answer.probabilities[answer.label] >= 0.5
    assert loaded.predict([]) == []


def test_a_text_answers_the_same_in_any_company(minted: Any, tickets: Any) -> None:
    loaded = load_predictor(minted.folder, minted.base_folder)
    texts = [ticket.text for ticket in tickets(20, 3)]
    together = loaded.logits(texts)
    for place, text in enumerate(texts):
        assert torch.allclose(loaded.logits([text])[0], together[place], atol=1e-5)


def test_a_proof_replays(minted: Any) -> None:
    loaded = load_predictor(minted.folder, minted.base_folder)
    assert loaded.replay(read_proof(minted.folder)) < 1e-5


@pytest.mark.parametrize("spoil", ["logit", "nan", "text"])
def test_a_proof_that_fails_is_refused(copied: Path, minted: Any, spoil: str) -> None:
    logits = load_file(copied / "proof.safetensors")["logits"]
    if spoil == "text":
        record = json.loads((copied / "proof.json").read_bytes())
        record["texts"][7] = "refund"
        (copied / "proof.json").write_text(json.dumps(record))
    else:
        logits[5, 1] = float("nan") if spoil == "nan" else logits[5, 1] + 2e-3
    save_file({"logits": logits}, copied / "proof.safetensors")
    with pytest.raises(ArtifactError, match=f"The proof failed: a logit differs by .*{minted.digest}.*provenance.json"):
        load_predictor(copied, minted.base_folder)


def test_a_prompt_changed_after_minting_fails_its_proof(copied: Path, minted: Any) -> None:
    """Even where nobody knows which digest to expect."""
    tensors = load_file(copied / "prompt.safetensors")
    tensors["values"] = tensors["values"].flip(2)  # another prompt of the same shape
    tensors["values"][0, 0] += 1
    save_file(tensors, copied / "prompt.safetensors")
    with pytest.raises(ArtifactError, match="The proof failed"):
        load_predictor(copied, minted.base_folder)
    with pytest.raises(ArtifactError, match="wanted"):
        load_predictor(copied, minted.base_folder, minted.digest)


def test_the_proof_catches_what_digests_cannot(minted: Any) -> None:
    """Another kernel: here an attention that scales otherwise."""
    loaded = load_predictor(minted.folder, minted.base_folder)
    for layer in loaded.base.layers:
        layer.module.scaling = 0.5  # type: ignore[assignment]
    with pytest.raises(ArtifactError, match="Compare the versions of torch and transformers"):
        loaded.replay(read_proof(minted.folder))


def test_another_base_is_refused(minted: Any, tmp_path: Path) -> None:
    other = shutil.copytree(minted.base_folder, tmp_path / "base")
    weights = load_file(other / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match="minted on another base"):
        load_predictor(minted.folder, other)


def test_a_base_comes_from_the_store(minted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))
    store = LocalStore(tmp_path / "store")
    with pytest.raises(NotInStore):
        base_from_store(minted.folder, store.uri)
    save_tree(store, minted.base_folder)
    folder = base_from_store(minted.folder, store.uri)
    assert folder.is_relative_to(tmp_path / "home/cache")
    loaded = load_predictor(minted.folder, folder, minted.digest)
    assert dataclasses.is_dataclass(loaded) and loaded.prompt.digest == minted.digest
