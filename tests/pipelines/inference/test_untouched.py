"""The base asked without the prompt answers as if nothing had been tuned, beside rows that follow a prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.errors import BaseModelError
from pipelines.inference.engine import Engine
from pipelines.inference.forward import padded
from pipelines.inference.label_words import word_scores
from pipelines.inference.untouched import Untouched

Mint = Callable[..., Any]
TEXTS = ("please help me with my password", "my invoice", "why is it wrong again")
WORDS = {"one token": ("password", "invoice"), "several": ("password", "credit card")}


@torch.no_grad()
@pytest.mark.parametrize("kind", WORDS)
def test_it_answers_zero_shot_beside_prompts(mint_on: Mint, any_folder: Path, kind: str) -> None:
    engine = Engine(any_folder)
    if engine.base.lm_head is None:
        pytest.skip("no language-model head: see the refusal below")
    for method in ("p-tuning-v2", "prompt-tuning", "lopa"):
        engine.add(method, mint_on(any_folder, method, words=WORDS[kind]).folder)
    asked: list[tuple[str | Untouched, str]] = []
    for text in TEXTS:
        asked += [("p-tuning-v2", text), (Untouched("p-tuning-v2"), text), ("lopa", text), (Untouched("lopa"), text)]
    answers = engine.predict(asked)
    head, steered = engine.prompts()["lopa"].head, False
    for (name, text), answer in zip(asked, answers, strict=True):
        found = list(answer.probabilities.values())
        bare = word_scores(engine.base, *padded([engine.tokenizer(text)["input_ids"]]), {}, head)[0].softmax(0).tolist()
        same = found == pytest.approx(bare, rel=0, abs=1e-5)
        assert same or not isinstance(name, Untouched), (name, text)
        steered |= not same
    assert steered or kind == "several", "the prompts do say something else; long words may leave no doubt either way"


def test_a_head_that_was_trained_with_its_prompt_is_not_asked_without_it(minted: Any) -> None:
    engine = Engine(minted.base_folder)
    engine.add("tickets", minted.folder)
    with pytest.raises(BaseModelError, match=r"no answer in the place of 'tickets'.*label words"):
        engine.predict([("tickets", TEXTS[0]), (Untouched("tickets"), TEXTS[0])])


@torch.no_grad()
def test_it_writes_on_as_the_base_does_of_its_own(mint_on: Mint, gpt2_folder: Path) -> None:
    engine = Engine(gpt2_folder)
    engine.add("tickets", mint_on(gpt2_folder).folder)
    ids = engine.tokenizer(TEXTS[0])["input_ids"]
    written: list[int] = []
    for _ in range(6):
        states = engine.base.backbone(torch.tensor([ids + written])).last_hidden_state
        written.append(int(engine.base.lm_head(states[0, -1]).argmax()))
    assert engine.tokenizer.eos_token_id not in written
    wanted = engine.tokenizer.decode(ids + written)[len(engine.tokenizer.decode(ids)) :]
    assert "".join(engine.generate(Untouched("tickets"), TEXTS[0], 6)) == wanted
    assert "".join(engine.generate("tickets", TEXTS[0], 6)) != wanted
