"""The added latency: both sides measured in turn, on every kind of base and of head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import DataError
from pipelines.evaluation import latency
from pipelines.evaluation.gates import judge
from pipelines.inference.base import load_base
from pipelines.prompts.artifact import read_prompt
from pipelines.recipe import Budgets, Gates
from pipelines.tokens.template import MARKER


def test_both_sides_answer_the_same_text_in_turn(minted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, prompt = load_base(minted.base_folder), read_prompt(minted.folder)
    asked: list[tuple[bool, tuple[int, ...], torch.Tensor]] = []
    answer = latency.scores_of_one

    def watched(base: Any, ids: torch.Tensor, mask: torch.Tensor, steered: Any) -> torch.Tensor:
        scores = answer(base, ids, mask, steered)
        asked.append((bool(steered.tensors), tuple(ids.shape), scores))
        return scores

    monkeypatch.setattr(latency, "scores_of_one", watched)
    found = latency.measure(base, prompt, 12)
    rounds = latency.WARM_UP + latency.REPETITIONS
    assert [steered for steered, *_ in asked] == [False, True, True, False] * (rounds // 2), "each goes first in turn"
    assert {shape for _, shape, _ in asked} == {(1, 12)}
    assert not torch.equal(asked[0][2], asked[1][2]), "the prompt has a say, and the base answers without it"
    assert found["added_latency_low_ms"] <= found["added_latency_ms"] <= found["added_latency_high_ms"]
    assert found["base_latency_ms"] > 0 and found["latency_tokens"] == 12
    assert found["machine"]["device"] == "cpu" and found["machine"]["threads"] >= 1


def test_a_prompt_in_the_text_is_asked_with_its_place(
    mint_on: Any, llama_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[bool, int, int]] = set()

    def watched(base: Any, ids: torch.Tensor, mask: torch.Tensor, steered: Any) -> None:
        asked.add((bool(steered.tensors), ids.shape[1], ids.tolist()[0].count(MARKER)))

    monkeypatch.setattr(latency, "scores_of_one", watched)
    minted = mint_on(llama_folder, "prompt-tuning", template="{text} {prompt} again")
    latency.measure(load_base(llama_folder), read_prompt(minted.folder), 12)
    assert asked == {(True, 13, 1), (False, 12, 0)}


def test_what_is_added_is_the_difference(minted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own: this machine may be busy."""
    now = 0.0

    def answer(base: Any, ids: torch.Tensor, mask: torch.Tensor, steered: Any) -> None:
        nonlocal now
        now += 0.0075 if steered.tensors else 0.005

    monkeypatch.setattr(latency, "scores_of_one", answer)
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: now))
    found = latency.measure(load_base(minted.base_folder), read_prompt(minted.folder), 4)
    assert (found["added_latency_ms"], found["prompt_latency_ms"], found["base_latency_ms"]) == (2.5, 7.5, 5.0)


def test_the_range_holds_the_median() -> None:
    drawn = np.sort(np.random.default_rng(0).exponential(size=(4000, 100)), axis=1)
    ranges = [latency.median_range(row) for row in drawn.tolist()]
    held = np.mean([low <= np.log(2) <= high for low, high in ranges])
    assert 0.945 <= held <= 0.975
    assert latency.median_range([1.0, 2.0, 3.0]) == (1.0, 3.0)


BUDGET = Gates(budgets=Budgets(added_latency_ms=0.5))


@pytest.mark.parametrize(
    ("added", "low", "verdict"),
    [(-0.02, -0.1, "passed"), (0.5, 0.4, "passed"), (0.6, 0.4, "inconclusive"), (0.6, 0.51, "refused")],
)
def test_a_budget_of_time_is_broken_only_where_that_is_proven(added: float, low: float, verdict: str) -> None:
    costs = {"added_latency_ms": added, "added_latency_low_ms": low, "base_latency_ms": 3.2}
    (gate,) = judge(BUDGET, {}, costs, seed=0).gates
    assert (gate.name, gate.verdict, gate.estimate) == ("budget of added latency", verdict, added)
    assert gate.reason == (
        f"{added:.2f} ms (at least {low:.2f}) added to the 3.20 ms in which the base alone answers a text of 32 "
        "tokens, 0.5 allowed"
    )


def test_a_time_that_was_not_taken_is_missed() -> None:
    with pytest.raises(DataError, match="budget for 'added_latency_ms', but the costs tell only 'artifact_bytes'"):
        judge(BUDGET, {}, {"artifact_bytes": 3}, seed=0)


def test_a_budget_that_is_not_asked_for_is_in_no_digest() -> None:
    assert Budgets().model_dump() == {"artifact_bytes": None, "trainable_params": None}
    assert Budgets(added_latency_ms=1).model_dump()["latency_tokens"] == 32
