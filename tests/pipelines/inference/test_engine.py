"""An engine answers for many prompts as each of them alone, with whatever is added, replaced and dropped meanwhile."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.errors import ArtifactError, BaseModelError, DataError
from pipelines.inference.engine import Engine
from pipelines.inference.predictor import Answer, Predictor, load_predictor
from pipelines.inference.shelf import size_bytes
from pipelines.prompts.artifact import Proof, read_proof, write_prompt, write_proof

Mint = Callable[..., Any]
WORDS = ("password", "invoice")
KINDS: dict[str, dict[str, Any]] = {
    "keys": {"method": "p-tuning-v2", "tokens": 4},
    "short": {"method": "prefix-tuning", "tokens": 1},
    "input": {"method": "prompt-tuning", "tokens": 7},
    "encoded": {"method": "p-tuning", "tokens": 3},
    "to each text": {"method": "lopa", "tokens": 3},
    "between layers": {"method": "late", "tokens": 2, "layer": 1},
}
PAIRS = "{text}{sep}{pair}"
TWO = ("my login again", "why does nobody answer my question")
LABEL_WORDS = {
    "label words": {"method": "p-tuning-v2", "tokens": 2, "words": WORDS},
    "long label words": {"method": "prompt-tuning", "tokens": 2, "words": ("password", "credit card")},
}


def alone(folder: Path, base_folder: Path) -> Predictor:
    return load_predictor(folder, base_folder)


def with_classes(minted: Any, folder: Path, classes: int) -> Path:
    """The minted prompt with a head of some other number of classes, proven anew."""
    loaded = alone(minted.folder, minted.base_folder)
    card = {**loaded.prompt.card, "labels": [f"class {number}" for number in range(classes)]}
    generator = torch.Generator().manual_seed(classes)
    width = loaded.base.hidden_width
    head = {"weight": torch.randn(classes, width, generator=generator), "bias": torch.ones(classes)}
    folder.mkdir()
    stored = load_file(minted.folder / "prompt.safetensors")
    tensors = {name: tensor for name, tensor in stored.items() if not name.startswith("head.")}
    digest = write_prompt(folder, card, tensors, head)
    changed = Predictor(type(loaded.prompt)(card, tensors, head, digest), loaded.base, loaded.tokenizer)
    texts = read_proof(minted.folder).texts
    write_proof(folder, Proof(texts, changed.logits(texts), 1e-3))
    return folder


def close(left: Answer, right: Answer) -> bool:
    return left.label == right.label and list(left.probabilities.values()) == pytest.approx(
        list(right.probabilities.values()), rel=0, abs=1e-5
    )


def test_a_mixed_batch_answers_as_each_prompt_alone(
    mint_on: Mint, any_folder: Path, tickets: Any, tmp_path: Path
) -> None:
    """Methods, lengths, heads and numbers of classes differ; so do the texts."""
    engine = Engine(any_folder)
    kinds = KINDS | (LABEL_WORDS if engine.base.lm_head is not None else {})
    minted = {name: mint_on(any_folder, **kind) for name, kind in kinds.items()}
    folders = {name: each.folder for name, each in minted.items()}
    folders["five classes"] = with_classes(minted["keys"], tmp_path / "five", 5)
    folders["three classes"] = with_classes(minted["input"], tmp_path / "three", 3)
    for name, folder in folders.items():
        assert engine.add(name, folder) < 1e-4
    texts = [ticket.text for ticket in tickets(29, 4)]
    requests = list(zip(itertools.cycle(folders), texts, strict=False))
    answers = engine.predict(requests)
    predictors = {name: alone(folder, any_folder) for name, folder in folders.items()}
    for (name, text), answer in zip(requests, answers, strict=True):
        assert close(answer, predictors[name].predict([text])[0]), (name, text)
    same = engine.predict([(name, texts[0]) for name in kinds])
    assert len({round(answer.probability, 4) for answer in same}) == len(kinds)  # the prompts do differ


@pytest.mark.parametrize("base", ["bert", "t5"])
def test_pairs_share_a_batch_with_texts(mint_on: Mint, base: str, request: pytest.FixtureRequest) -> None:
    """An encoder that tells the second text from the first must do so behind input vectors too."""
    folder = request.getfixturevalue(f"{base}_folder")
    kinds = {name: KINDS[name] for name in ("keys", "input")}
    folders = {name: mint_on(folder, **kind).folder for name, kind in kinds.items()}
    folders |= {f"{name} of pairs": mint_on(folder, template=PAIRS, **kind).folder for name, kind in kinds.items()}
    engine = Engine(folder)
    for name, each in folders.items():
        engine.add(name, each)
    answers = engine.predict([(name, TWO if "pairs" in name else TWO[0]) for name in folders])
    for (name, each), answer in zip(folders.items(), answers, strict=True):
        loaded = alone(each, folder)
        assert close(answer, loaded.predict(TWO[:1], TWO[1:] if "pairs" in name else None)[0]), name
    for other in (("keys", "my login"), ("input of pairs", TWO), ("keys", TWO)):
        with pytest.raises(DataError, match=r"Give (one|two)"):
            engine.predict([other, ("keys of pairs", "my login")])


@pytest.fixture
def engine(minted: Any) -> Engine:
    """An engine on the encoder, with no prompts yet."""
    return Engine(minted.base_folder)


def test_what_is_ready_is_listed(engine: Engine, minted: Any) -> None:
    assert engine.prompts() == {} and engine.predict([]) == []
    engine.add("tickets", minted.folder, minted.digest)
    assert {name: prompt.digest for name, prompt in engine.prompts().items()} == {"tickets": minted.digest}
    engine.remove("tickets")
    assert engine.prompts() == {}
    for call in (lambda: engine.remove("tickets"), lambda: engine.predict([("tickets", "my login")])):
        with pytest.raises(ArtifactError, match=r"There is no prompt 'tickets' here; there are \(none\)"):
            call()


def test_a_prompt_that_is_refused_leaves_the_one_before_it(engine: Engine, minted: Any, tmp_path: Path) -> None:
    engine.add("tickets", minted.folder)
    (before,) = engine.predict([("tickets", "my login")])
    spoilt = shutil.copytree(minted.folder, tmp_path / "spoilt")
    logits = load_file(spoilt / "proof.safetensors")["logits"] + 0.01
    save_file({"logits": logits}, spoilt / "proof.safetensors")
    with pytest.raises(ArtifactError, match="The proof failed"):
        engine.add("tickets", spoilt)
    with pytest.raises(ArtifactError, match="wanted 0000"):
        engine.add("tickets", minted.folder, "0" * 64)
    with pytest.raises(ArtifactError, match="Cannot read"):
        engine.add("other", tmp_path / "nowhere")
    assert engine.predict([("tickets", "my login")]) == [before]
    assert list(engine.prompts()) == ["tickets"]


def test_a_prompt_of_another_base_is_refused(engine: Engine, mint_on: Mint, gpt2_folder: Path) -> None:
    with pytest.raises(BaseModelError, match="minted on another base"):
        engine.add("tickets", mint_on(gpt2_folder).folder)
    assert engine.prompts() == {}


def test_a_prompt_in_memory_is_not_the_file_that_it_came_from(engine: Engine, minted: Any, tmp_path: Path) -> None:
    """Overwritten in place, as a careless copy does; the tensors must not be mapped from there."""
    folder = shutil.copytree(minted.folder, tmp_path / "prompt")
    engine.add("tickets", folder)
    before = engine.predict([("tickets", "my login")])
    size = (folder / "prompt.safetensors").stat().st_size
    with (folder / "prompt.safetensors").open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    assert engine.predict([("tickets", "my login")]) == before


# Memory.


def test_what_was_not_asked_for_the_longest_is_dropped_and_read_again(mint_on: Mint, bert_folder: Path) -> None:
    folders = {
        name: mint_on(bert_folder, init_scale=scale).folder for name, scale in zip("abc", (1, 2, 3), strict=True)
    }
    whole = Engine(bert_folder)
    for name, folder in folders.items():
        whole.add(name, folder)
    room_for_two = 2 * size_bytes(whole.prompts()["a"])
    engine = Engine(bert_folder, prompt_bytes=room_for_two)
    for name, folder in folders.items():
        engine.add(name, folder)

    def dropped() -> list[str]:
        return [name for name, prompt in engine.prompts().items() if size_bytes(prompt) == 0]

    def answered(*names: str) -> bool:
        requests = [(name, "my login again") for name in names]
        pairs = zip(engine.predict(requests), whole.predict(requests), strict=True)
        return all(close(answer, wanted) for answer, wanted in pairs)

    assert dropped() == ["a"] and engine.prompts()["a"].labels == ["account", "billing"]
    assert answered("b") and dropped() == ["a"]
    assert answered("a") and dropped() == ["c"]  # b was asked for after it was added
    assert answered("c", "c", "a", "b") and len(dropped()) == 1  # more than there is room for, in one call
    engine.add("b", folders["c"])
    engine.remove("c")
    assert dropped() == []


def test_a_dropped_prompt_that_changed_in_its_folder_is_refused(
    mint_on: Mint, bert_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(mint_on(bert_folder).folder, tmp_path / "prompt")
    engine = Engine(bert_folder, prompt_bytes=1)
    engine.add("tickets", folder)
    assert engine.predict([("tickets", "my login")])
    shutil.rmtree(folder)
    shutil.copytree(mint_on(bert_folder, tokens=3).folder, folder)
    with pytest.raises(ArtifactError, match="wanted"):
        engine.predict([("tickets", "my login")])


def test_the_base_is_read_once(minted: Any, tmp_path: Path) -> None:
    """A prompt is held to the base that is in memory; its files need not be there any more."""
    base_folder = shutil.copytree(minted.base_folder, tmp_path / "base")
    engine = Engine(base_folder)
    engine.add("one", minted.folder)
    (base_folder / "model.safetensors").write_bytes(b"another base")
    engine.add("two", minted.folder)
    first, second = engine.predict([("one", "my login"), ("two", "my login")])
    assert close(first, second)


# Threads.


def test_a_call_never_mixes_two_prompts_of_one_name(mint_on: Mint, bert_folder: Path) -> None:
    """The champion is swapped all the time; every call answers as the one or as the other, for all of its rows."""
    versions = [mint_on(bert_folder, tokens=tokens).folder for tokens in (2, 5)]
    texts = ["my login", "a refund", "the invoice is wrong"]
    wanted = [alone(folder, bert_folder).predict(texts) for folder in versions]
    engine = Engine(bert_folder)
    engine.add("tickets", versions[0])
    stop, swaps = threading.Event(), itertools.count()

    def swap() -> None:
        while not stop.is_set():
            engine.add("tickets", versions[next(swaps) % 2])

    def others() -> None:
        while not stop.is_set():
            engine.add("guest", versions[1])
            engine.remove("guest")

    threads = [threading.Thread(target=swap), threading.Thread(target=others)]
    for thread in threads:
        thread.start()
    try:
        seen = set()
        for _ in range(60):
            answers = engine.predict([("tickets", text) for text in texts])
            matching = [
                number
                for number, each in enumerate(wanted)
                if all(close(left, right) for left, right in zip(answers, each, strict=True))
            ]
            assert len(matching) == 1
            seen.add(matching[0])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert next(swaps) > 2
    assert seen <= {0, 1}
