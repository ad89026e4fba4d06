"""A minted prompt says all about itself and nothing about the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from pipelines.digests import digest_folder
from pipelines.inference.forward import padded
from pipelines.prompts.artifact import read_prompt, read_proof
from pipelines.prompts.methods import PRESETS
from pipelines.prompts.parameterisation import Direct
from pipelines.training.tuned import Tuned

Mint = Callable[..., Any]


def test_minting_twice_gives_the_same_bytes(mint_on: Mint, minted: Any, bert_folder: Path) -> None:
    again = mint_on(bert_folder)
    assert again.folder != minted.folder
    assert again.digest == minted.digest and digest_folder(again.folder) == digest_folder(minted.folder)


@pytest.mark.parametrize("method", PRESETS)
@torch.no_grad()
def test_a_folded_prompt_answers_as_the_module_that_gave_it(mint_on: Mint, any_folder: Path, method: str) -> None:
    """To the bit: what is stored are the tensors that the forward pass reads, with nothing dropped out of them."""
    minted = mint_on(any_folder, method, dropout=0.5)
    stored = read_prompt(minted.folder)
    assert set(stored.tensors) == set(minted.tuned.prompt()), "as many as are injected, and no encoder"
    enters = {"input": {"embeddings"}, "key-value": {"keys"}, "layer": {"layer_1", "pool_queries"}}
    assert enters[stored.card["method"]["injection"]] & set(stored.tensors)
    rows = padded([[5, 9, 12, 7], [6], [21, 14, 11, 8, 30, 41]])
    folded = Tuned(minted.tuned.base, Direct(stored.tensors), stored.head)
    assert torch.equal(folded(*rows), minted.tuned(*rows))
    minted.tuned.prompt.train()
    assert not torch.equal(folded(*rows), minted.tuned(*rows))


def test_the_card_has_the_settings_of_its_method_and_no_other(mint_on: Mint, bert_folder: Path) -> None:
    card = read_prompt(mint_on(bert_folder, "residual").folder).card
    assert card["method"] == {"name": "residual", **PRESETS["residual"].described}
    assert card["settings"]["bottleneck"] == 128 and card["settings"]["init"] == "random"
    assert not {"encoder", "hidden", "basis", "init_text"} & set(card["settings"])


def test_the_card_names_all_that_decided(minted: Any) -> None:
    card = read_prompt(minted.folder).card
    assert card["method"] == {"name": "p-tuning-v2", **PRESETS["p-tuning-v2"].described}
    assert card["settings"]["tokens"] == 4 and card["settings"]["init_scale"] == 1.0
    assert card["settings"]["training"]["clip"] == 1.0  # a default, written out
    assert card["head"] == {"kind": "linear", "words": None, "pooling": "mean"}
    assert card["labels"] == ["account", "billing"] and card["seed"] == 5
    assert card["tensors"]["keys"] == ["float32", 2, 4, 4, 8]
    assert set(card) >= {"base", "data", "recipe", "template"}


@pytest.mark.parametrize(("words", "pooling"), [(None, "last"), (("account", "billing"), "last")])
def test_a_decoder_reads_the_last_position(mint_on: Mint, llama_folder: Path, words: Any, pooling: str) -> None:
    card = read_prompt(mint_on(llama_folder, "prompt-tuning", words).folder).card
    assert card["head"]["pooling"] == pooling and card["head"]["words"] == (list(words) if words else None)
    assert set(card["tensors"]) == {"embeddings", *(["head.word_ids"] if words else ["head.weight", "head.bias"])}


def test_a_proof_holds_words_of_the_vocabulary_and_no_training_text(minted: Any, tickets: Any) -> None:
    proof = read_proof(minted.folder)
    vocabulary = AutoTokenizer.from_pretrained(minted.base_folder).get_vocab()
    assert len(proof.texts) == 8 and proof.logits.shape == (8, 2)
    assert len({len(text.split()) for text in proof.texts}) == 8
    assert all(word in vocabulary for text in proof.texts for word in text.split())
    written = (minted.folder / "proof.json").read_text() + (minted.folder / "prompt.json").read_text()
    assert not any(ticket.text in written for ticket in tickets(200, 0))


def test_another_prompt_has_another_proof(mint_on: Mint, bert_folder: Path, minted: Any) -> None:
    other = read_proof(mint_on(bert_folder, "prompt-tuning").folder)
    assert other.texts != read_proof(minted.folder).texts


def test_the_proof_can_tell_the_prompt_from_none(minted: Any) -> None:
    """Its tolerance is far below what the prompt does to the logits."""
    proof = read_proof(minted.folder)
    prompt, minted.tuned.prompt = minted.tuned.prompt, None
    try:
        tokenizer = AutoTokenizer.from_pretrained(minted.base_folder)
        ids = [tokenizer(text, return_tensors="pt")["input_ids"][:, :32] for text in proof.texts[:3]]
        with torch.no_grad():
            bare = torch.cat([minted.tuned(row, torch.ones_like(row)) for row in ids])
    finally:
        minted.tuned.prompt = prompt
    assert float((bare - proof.logits[:3]).abs().max()) > 10 * proof.tolerance


def test_files_are_canonical_json(minted: Any) -> None:
    for name in ("prompt.json", "proof.json"):
        text = (minted.folder / name).read_text()
        value = json.loads(text)
        assert text == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
