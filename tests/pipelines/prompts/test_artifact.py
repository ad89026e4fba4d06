"""A prompt artifact reads back as it was written, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipelines.digests import digest_file, digest_folder
from pipelines.errors import ArtifactError, BaseModelError
from pipelines.prompts.artifact import (
    Proof,
    check_base,
    prompt_digest,
    read_prompt,
    read_proof,
    write_prompt,
    write_proof,
)

CARD = {"labels": ["no", "yes"], "seed": 3, "method": {"name": "p-tuning-v2"}, "template": {"text": "{text} ä"}}
TENSORS = {"keys": torch.randn(2, 4, 3, 8), "values": torch.randn(2, 4, 3, 8)}
HEAD = {"weight": torch.randn(2, 32), "bias": torch.zeros(2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact with a proof."""
    write_prompt(tmp_path, CARD, TENSORS, HEAD)
    write_proof(tmp_path, Proof(["one", "two"], torch.tensor([[0.1, 0.2], [0.3, 0.4]]), 1e-3))
    return tmp_path


def test_it_reads_back_as_it_was_written(folder: Path) -> None:
    prompt = read_prompt(folder, prompt_digest(folder))
    assert {name: prompt.card[name] for name in CARD} == CARD and prompt.labels == ["no", "yes"]
    for found, wanted in ((prompt.tensors, TENSORS), (prompt.head, HEAD)):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == torch.float32 for name in wanted)
    proof = read_proof(folder)
    assert proof.texts == ["one", "two"] and proof.tolerance == 1e-3
    assert torch.equal(proof.logits, torch.tensor([[0.1, 0.2], [0.3, 0.4]]))


def test_the_same_prompt_has_the_same_digest_anywhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    strided = {name: tensor.transpose(0, 1).contiguous().transpose(0, 1) for name, tensor in TENSORS.items()}
    assert write_prompt(other, dict(reversed(CARD.items())), strided, HEAD) == prompt_digest(folder)


@pytest.mark.parametrize("changed", [{**CARD, "seed": 4}, {**CARD, "more": 1}])
def test_another_card_is_another_prompt(folder: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    before = prompt_digest(folder)
    assert write_prompt(tmp_path, changed, TENSORS, HEAD) != before


def test_the_last_bit_of_a_tensor_counts(folder: Path, tmp_path: Path) -> None:
    before = prompt_digest(folder)
    nudged = TENSORS["keys"].clone()
    nudged[0, 0, 0, 0] = torch.nextafter(nudged[0, 0, 0, 0], torch.tensor(9.0))
    assert write_prompt(tmp_path, CARD, {**TENSORS, "keys": nudged}, HEAD) != before


def test_proof_and_provenance_are_not_the_identity(folder: Path) -> None:
    before, whole = prompt_digest(folder), digest_folder(folder)
    (folder / "provenance.json").write_text("{}")
    (folder / "proof.json").unlink()
    assert prompt_digest(folder) == before and digest_folder(folder) != whole
    assert read_prompt(folder, before).digest == before


@pytest.mark.parametrize("name", ["prompt.json", "prompt.safetensors"])
@pytest.mark.parametrize("spoil", ["cut", "emptied", "gone"])
def test_a_damaged_file_is_refused(folder: Path, name: str, spoil: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if spoil != "gone":
        path.write_bytes(data[: len(data) // 2] if spoil == "cut" else b"")
    with pytest.raises(ArtifactError, match=f"Cannot read .*{name}.*Pull the prompt again"):
        read_prompt(folder)


@pytest.mark.parametrize("name", ["proof.json", "proof.safetensors"])
@pytest.mark.parametrize("spoil", ["cut", "gone"])
def test_a_damaged_proof_is_refused(folder: Path, name: str, spoil: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if spoil == "cut":
        (folder / name).write_bytes(data[:-2])
    with pytest.raises(ArtifactError, match=r"Pull the prompt again"):
        read_proof(folder)


@pytest.mark.parametrize(
    ("record", "logits", "words"),
    [
        ({"texts": [], "tolerance": 1.0}, torch.zeros(0, 2), "0 texts and logits for 0: it proves nothing"),
        ({"texts": ["a", "b"], "tolerance": 1.0}, torch.zeros(1, 2), "2 texts and logits for 1"),
        ({"texts": ["a"]}, torch.zeros(1, 2), "lacks 'tolerance'"),
        (["a"], torch.zeros(1, 2), "not a JSON object"),
    ],
)
def test_a_proof_that_proves_nothing_is_refused(folder: Path, record: Any, logits: torch.Tensor, words: str) -> None:
    (folder / "proof.json").write_text(json.dumps(record))
    save_file({"logits": logits}, folder / "proof.safetensors")
    with pytest.raises(ArtifactError, match=words):
        read_proof(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), bit=st.integers(0, 7), name=st.sampled_from(["prompt.json", "prompt.safetensors"]))
def test_any_flipped_bit_is_refused(folder: Path, data: st.DataObject, bit: int, name: str) -> None:
    digest, original = prompt_digest(folder), (folder / name).read_bytes()
    place = data.draw(st.integers(0, min(len(original), 500) - 1))  # headers, and some of the numbers
    flipped = bytearray(original)
    flipped[place] ^= 1 << bit
    (folder / name).write_bytes(flipped)
    try:
        with pytest.raises(ArtifactError):
            read_prompt(folder, digest)
    finally:
        (folder / name).write_bytes(original)


def test_a_wrong_digest_names_both(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=f"has digest {prompt_digest(folder)}, wanted {'0' * 64}.*pull it again"):
        read_prompt(folder, "0" * 64)


@pytest.mark.parametrize("version", [2, None, "1"])
def test_another_format_is_refused(folder: Path, version: object) -> None:
    card = json.loads((folder / "prompt.json").read_bytes()) | {"format": version}
    (folder / "prompt.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=f"has format {version!r}; this version reads format 1. Install"):
        read_prompt(folder)


@pytest.mark.parametrize("change", ["shape", "dtype", "name", "more", "card"])
def test_tensors_are_held_to_the_card(folder: Path, change: str) -> None:
    path = folder / "prompt.safetensors"
    stored = load_file(path)
    match change:
        case "shape":
            stored["keys"] = stored["keys"][:, :, :2].contiguous()
        case "dtype":
            stored["keys"] = stored["keys"].to(torch.float16)
        case "name":
            stored["embeddings"] = stored.pop("keys")
        case "more":
            stored["extra"] = torch.zeros(1)
        case "card":
            card = json.loads((folder / "prompt.json").read_bytes())
            del card["tensors"]
            (folder / "prompt.json").write_text(json.dumps(card))
    save_file(stored, path)
    with pytest.raises(ArtifactError, match=r"but prompt.json names .*pull it again"):
        read_prompt(folder)


# The base.


@pytest.fixture
def copied(bert_folder: Path, tmp_path: Path) -> Path:
    """A copy of the encoder that may be spoilt."""
    return shutil.copytree(bert_folder, tmp_path / "base")


@pytest.fixture
def card(bert_folder: Path) -> dict[str, Any]:
    """The card of a prompt that belongs to the encoder."""
    files = {path.name: digest_file(path) for path in bert_folder.iterdir()}
    return {"base": {"name": "tiny/bert", "files": files}}


def test_the_base_itself_passes(card: dict[str, Any], copied: Path) -> None:
    check_base(card, copied)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_one_other_bit_in_the_base_is_refused(card: dict[str, Any], copied: Path, name: str) -> None:
    path = copied / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BaseModelError) as caught:
        check_base(card, copied)
    for part in (name, "tiny/bert", digest_file(path), card["base"]["files"][name], "pull that base"):
        assert part in str(caught.value)


def test_a_file_that_is_missing_is_refused(card: dict[str, Any], copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"tokenizer.json has SHA-256 \(no such file\)"):
        check_base(card, copied)


def test_what_a_mint_wrote_reads_back(minted: Any) -> None:
    prompt = read_prompt(minted.folder, minted.digest)
    assert prompt.card["format"] == 1
    for name, tensor in minted.tuned.prompt().items():
        assert torch.equal(prompt.tensors[name], tensor)


def test_nothing_in_an_artifact_is_a_pickle(mint_on: Callable[..., Any], gpt2_folder: Path) -> None:
    folder = mint_on(gpt2_folder, "prompt-tuning", ("billing", "account")).folder
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8000
