"""A decoder that keeps what it has read writes what it would write if it read everything anew each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.errors import BaseModelError
from pipelines.inference.engine import Engine
from pipelines.inference.forward import hidden_states, padded
from pipelines.inference.generation import _pieces

Mint = Callable[..., Any]
TEXT = "please help me with my password"


@torch.no_grad()
def naive(engine: Engine, name: str, count: int) -> list[int]:
    """The likeliest token each time, all that stands before it read anew."""
    prompt, ids = engine.prompts()[name], engine.tokenizer(TEXT)["input_ids"]
    written: list[int] = []
    for _ in range(count):
        states = hidden_states(engine.base, *padded([ids + written]), prompt.tensors)
        token = int(engine.base.lm_head(states[0, -1]).argmax())
        if token == engine.tokenizer.eos_token_id:
            break
        written.append(token)
    return written


@pytest.fixture(params=["gpt2", "llama"])
def engine(mint_on: Mint, request: pytest.FixtureRequest) -> Engine:
    """An engine on each decoder, with a prompt of either kind."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    engine = Engine(folder)
    for method in ("p-tuning-v2", "prompt-tuning"):
        engine.add(method, mint_on(folder, method, tokens=5).folder)
    return engine


@pytest.mark.parametrize("name", ["p-tuning-v2", "prompt-tuning"])
def test_it_writes_what_it_would_reading_everything_anew(engine: Engine, name: str) -> None:
    wanted = naive(engine, name, 12)
    before = engine.tokenizer.decode(engine.tokenizer(TEXT)["input_ids"])
    text = engine.tokenizer.decode(engine.tokenizer(TEXT)["input_ids"] + wanted, skip_special_tokens=True)
    assert "".join(engine.generate(name, TEXT, 12)) == text[len(before) :] != ""


def test_prompts_steer_and_calls_may_run_in_between(engine: Engine) -> None:
    names = ["p-tuning-v2", "prompt-tuning"]
    wanted = ["".join(engine.generate(name, TEXT, 8)) for name in names]
    assert wanted[0] != wanted[1]
    writers = [engine.generate(name, TEXT, 8) for name in names]
    found = ["", ""]
    for _ in range(8):
        for place, writer in enumerate(writers):
            found[place] += next(writer, "")
        engine.predict([(name, TEXT) for name in names])
    assert found == wanted


def test_it_ends_where_the_context_is_full(engine: Engine) -> None:
    """64 positions: 5 for the prompt, the text's, and one for each token that is read."""
    ids = engine.tokenizer(TEXT)["input_ids"]
    engine.base.backbone.config.eos_token_id = None  # so that nothing else ends it
    engine.tokenizer.eos_token = None
    room = 64 - 5 - len(ids) + 1
    written = "".join(engine.generate("p-tuning-v2", TEXT, 500))
    assert written == "".join(engine.generate("p-tuning-v2", TEXT, room))
    assert len(written) > len("".join(engine.generate("p-tuning-v2", TEXT, room - 5)))


def test_it_ends_with_the_text(engine: Engine) -> None:
    (first,) = naive(engine, "p-tuning-v2", 1)
    engine.base.backbone.config.eos_token_id = [first]
    assert list(engine.generate("p-tuning-v2", TEXT, 9)) == []


def test_an_encoder_does_not_write(minted: Any) -> None:
    engine = Engine(minted.base_folder)
    engine.add("tickets", minted.folder)
    with pytest.raises(BaseModelError, match=r"'bert'.* cannot write on after a text"):
        engine.generate("tickets", TEXT, 3)


def test_a_character_comes_whole(gpt2_folder: Path) -> None:
    tokenizer = Engine(gpt2_folder).tokenizer
    before, after = tokenizer("a ")["input_ids"], tokenizer("fée ☃!")["input_ids"]
    pieces = list(_pieces(tokenizer, before, iter(after)))
    assert "".join(pieces) == "fée ☃!"
    assert len(pieces) < len(after) and not any("�" in piece for piece in pieces)
    assert "".join(_pieces(tokenizer, before, iter(tokenizer("☃")["input_ids"][:1]))) == "�"  # cut within a character
