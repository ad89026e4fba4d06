"""Robustness: held against itself on the texts as they are, or against another method on the same disturbed texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from pipelines.errors import DataError
from pipelines.evaluation.gates import judge
from pipelines.evaluation.outcome import GateResult
from pipelines.evaluation.scores import Scores
from pipelines.recipe import Gates, Robustness

Answered = Callable[[list[bool]], Scores]


def right(answered: Answered, share: float, n: int = 1000) -> Scores:
    return answered([True] * round(share * n) + [False] * (n - round(share * n)))


def judged(gate: Robustness, scores: dict[str, Scores], disturbed: dict[str, Scores], name: str) -> GateResult:
    (result,) = judge(Gates(robust=(gate,)), scores, {}, seed=0, disturbed={name: disturbed}).gates
    assert result.name == name
    return result


@pytest.mark.parametrize(
    ("disturbed", "n", "verdict", "says"),
    [
        (0.89, 1000, "passed", "1.0 points behind its answers to undisturbed texts (at worst -1."),
        (0.80, 1000, "refused", "10.0 points behind its answers to undisturbed texts (at best -8."),
        (0.88, 100, "inconclusive", "100 test examples are too few to tell, about "),
    ],
)
def test_a_prompt_is_held_against_itself(answered: Answered, disturbed: float, n: int, verdict: str, says: str) -> None:
    gate = Robustness(to="typos", rate=0.05, margin=3)
    scores = {"prompt": right(answered, 0.9, n)}
    found = judged(gate, scores, {"prompt": right(answered, disturbed, n)}, "robust to typos (5 %)")
    assert found.verdict == verdict and found.threshold == -3
    assert says in found.reason and "the recipe allows 3" in found.reason


def test_or_against_another_method_on_the_same_disturbed_texts(answered: Answered) -> None:
    gate = Robustness(to="upper", margin=2, beside="lora")
    scores = {"prompt": right(answered, 0.9), "lora": right(answered, 0.9)}
    disturbed = {"prompt": right(answered, 0.7), "lora": right(answered, 0.7)}
    found = judged(gate, scores, disturbed, "robust to upper beside lora")
    assert found.verdict == "passed" and found.reason.startswith("level with LoRA on the same disturbed texts")
    worse = judged(gate, scores, disturbed | {"lora": right(answered, 0.8)}, "robust to upper beside lora")
    assert worse.verdict == "refused"


def test_what_was_not_asked_of_anybody_cannot_be_judged(answered: Answered) -> None:
    gates = Gates(robust=(Robustness(to="lower", margin=2, beside="lora"),))
    for disturbed in ({}, {"robust to lower beside lora": {"prompt": right(answered, 0.9)}}):
        with pytest.raises(DataError, match="'robust to lower beside lora' needs the scores of"):
            judge(gates, {"prompt": right(answered, 0.9)}, {}, seed=0, disturbed=disturbed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": "typos", "margin": 2},
        {"to": "lower", "rate": 0.1, "margin": 2},
        {"to": "typos", "rate": 1.0, "margin": 2},
        {"to": "noise", "margin": 2},
        {"to": "lower", "margin": 0},
    ],
)
def test_a_rate_belongs_to_what_has_one(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Robustness.model_validate(wrong)


def test_gates_that_ask_the_same_twice_are_refused() -> None:
    gate = Robustness(to="typos", rate=0.1, margin=2)
    with pytest.raises(ValidationError, match="two tables of robust ask the same"):
        Gates(robust=(gate, gate.model_copy(update={"margin": 3})))
    Gates(robust=(gate, gate.model_copy(update={"rate": 0.2}), gate.model_copy(update={"beside": "lora"})))
