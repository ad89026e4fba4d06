from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pipelines.errors import DataError
from pipelines.evaluation.gates import judge
from pipelines.evaluation.scores import Scores
from pipelines.recipe import Budgets, Gates, NonInferiority, Superiority

Answered = Callable[[list[bool]], Scores]


def gates(*non_inferior: tuple[str, float], **budgets: int) -> Gates:
    compared = tuple(NonInferiority(to=to, margin=margin) for to, margin in non_inferior)
    return Gates(non_inferior=compared, budgets=Budgets(**budgets))


def superior(to: str = "lora", margin: float = 0) -> Gates:
    return Gates(superior=(Superiority(to=to, margin=margin),))


def against(answered: Answered, losses: int, wins: int, n: int = 1000) -> dict[str, Scores]:
    """A prompt that loses and wins this often against every other."""
    prompt = answered([False] * losses + [True] * (n - losses))
    other = answered([True] * (n - wins) + [False] * wins)
    return {"prompt": prompt, **dict.fromkeys(("lora", "full", "head_only", "champion"), other)}


def test_a_prompt_inside_the_margin_passes(answered: Answered) -> None:
    verdict = judge(gates(("lora", 2)), against(answered, losses=24, wins=20), {}, seed=0)
    (gate,) = verdict.gates
    assert (gate.name, gate.verdict, gate.estimate, gate.threshold) == ("non-inferior to lora", "passed", -0.4, -2)
    assert gate.low is not None and gate.high is not None and -2 < gate.low < -0.4 < gate.high
    assert verdict.verdict == "passed"
    assert verdict.reason.startswith("passed: 0.4 points behind LoRA (at worst -1.")
    assert verdict.reason.endswith("at 95 % confidence), the recipe allows 2")


def test_a_prompt_known_to_be_worse_is_refused(answered: Answered) -> None:
    verdict = judge(gates(("full", 5)), against(answered, losses=100, wins=20), {}, seed=0)
    (gate,) = verdict.gates
    assert verdict.verdict == gate.verdict == "refused"
    assert gate.high is not None and gate.high <= -5
    assert verdict.reason.startswith("refused: 8.0 points behind full fine-tuning (at best -6.")


def test_a_small_test_set_is_inconclusive_and_says_how_many_would_do(answered: Answered) -> None:
    verdict = judge(gates(("lora", 2)), against(answered, losses=10, wins=10, n=200), {}, seed=0)
    assert verdict.verdict == "inconclusive"
    assert "level with LoRA" in verdict.reason
    assert "200 test examples are too few to tell, about 1,4" in verdict.reason
    assert verdict.reason.endswith(" more would decide")


def test_an_estimate_beyond_the_margin_is_inconclusive_while_it_may_be_chance(answered: Answered) -> None:
    verdict = judge(gates(("lora", 2)), against(answered, losses=15, wins=10, n=200), {}, seed=0)
    (gate,) = verdict.gates
    assert gate.estimate == -2.5 and gate.high is not None and gate.high > -2
    assert verdict.verdict == "inconclusive"
    assert "too few to tell, about 30," in verdict.reason, "with so many it would be refused"


def test_a_prompt_that_is_better_is_said_to_be_ahead(answered: Answered) -> None:
    verdict = judge(gates(("champion", 1)), against(answered, losses=10, wins=40), {}, seed=0)
    assert verdict.verdict == "passed"
    assert "3.0 points ahead of the champion" in verdict.reason


def test_a_superior_prompt_is_proven_ahead(answered: Answered) -> None:
    verdict = judge(superior("head_only", 1), against(answered, losses=10, wins=40), {}, seed=0)
    (gate,) = verdict.gates
    assert (gate.name, gate.verdict, gate.estimate, gate.threshold) == ("superior to head_only", "passed", 3.0, 1)
    assert gate.low is not None and 1 < gate.low < 3
    assert "3.0 points ahead of the head alone (at worst +1." in verdict.reason
    assert verdict.reason.endswith("the recipe asks for more than 1 ahead")


@pytest.mark.parametrize(
    ("losses", "wins", "margin", "verdict", "says"),
    [
        (40, 10, 0, "refused", "3.0 points behind LoRA (at best -1."),
        (10, 20, 3, "refused", "1.0 points ahead of LoRA (at best +2."),
        (10, 20, 0.5, "inconclusive", "1,000 test examples are too few to tell, about "),
        (10, 12, 0.5, "inconclusive", "1,000 test examples are too few to tell, about "),
        (10, 10, 0, "inconclusive", "it lies exactly there, and no number of test examples beyond these 1,000"),
    ],
)
def test_superiority_not_proven_is_refused_or_inconclusive(
    answered: Answered, losses: int, wins: int, margin: float, verdict: str, says: str
) -> None:
    judged = judge(superior("lora", margin), against(answered, losses, wins), {}, seed=0)
    assert judged.verdict == verdict
    assert says in judged.reason


def test_comparisons_count_who_was_right_alone(answered: Answered) -> None:
    (gate,) = judge(gates(("lora", 2)), against(answered, losses=2, wins=9), {}, seed=0).gates
    assert (gate.lost, gate.won) == (2, 9)
    assert gate.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    told = judge(gates(("lora", 2)), against(answered, losses=0, wins=60), {}, seed=0).to_json()["gates"][0]
    assert 0 < told["p_value"] < 1e-15


def test_without_a_champion_its_gate_is_passed(answered: Answered) -> None:
    verdict = judge(gates(("champion", 1)), {"prompt": answered([True])}, {}, seed=0)
    (gate,) = verdict.gates
    assert (gate.verdict, gate.estimate, gate.low, gate.high, gate.threshold) == ("passed", None, None, None, None)
    assert verdict.reason == "passed: there is no champion on these labels yet"
    why = "the champion (version 3) answers other labels, 'a', 'b', so there was no comparison"
    told = judge(gates(("champion", 1)), {"prompt": answered([True])}, {}, seed=0, no_champion=why)
    assert (told.verdict, told.reason) == ("passed", f"passed: {why}")


@pytest.mark.parametrize(("size", "verdict"), [(999, "passed"), (1000, "passed"), (1001, "refused")])
def test_a_budget_may_be_spent_and_not_more(size: int, verdict: str) -> None:
    judged = judge(gates(artifact_bytes=1000), {}, {"artifact_bytes": size, "trainable_params": 10**9}, seed=0)
    (gate,) = judged.gates
    assert (judged.verdict, gate.estimate, gate.threshold, gate.low) == (verdict, size, 1000, None)
    assert judged.reason == f"{verdict}: {size:,} artifact bytes of 1,000 allowed"


def test_the_worst_gate_decides_and_gives_the_reason(answered: Answered) -> None:
    scores = against(answered, losses=10, wins=10, n=200)
    costs = {"trainable_params": 11, "artifact_bytes": 1}
    mixed = judge(gates(("lora", 2), ("full", 50), artifact_bytes=1), scores, costs, seed=0)
    assert [gate.verdict for gate in mixed.gates] == ["inconclusive", "passed", "passed"]
    assert mixed.verdict == "inconclusive" and "full" not in mixed.reason
    refused = judge(gates(("lora", 2), trainable_params=10), scores, costs, seed=0)
    assert refused.reason == "refused: 11 trainable parameters of 10 allowed"


def test_no_gates_prove_nothing() -> None:
    verdict = judge(Gates(), {}, {}, seed=0)
    assert (verdict.verdict, verdict.gates) == ("inconclusive", ())
    assert "names no gates" in verdict.reason


def test_what_a_gate_needs_must_be_there(answered: Answered) -> None:
    with pytest.raises(DataError, match="needs the scores of 'lora'; there are those of 'prompt'"):
        judge(gates(("lora", 2)), {"prompt": answered([True])}, {}, seed=0)
    with pytest.raises(DataError, match="budget for 'artifact_bytes', but the costs tell only 'seconds'"):
        judge(gates(artifact_bytes=1), {}, {"seconds": 1}, seed=0)
    with pytest.raises(DataError, match="different examples"):
        judge(gates(("lora", 2)), {"prompt": answered([True]), "lora": answered([True, True])}, {}, seed=0)


def test_the_json_is_plain_rounded_and_the_same_for_the_same_seed(answered: Answered) -> None:
    asked, scores = gates(("lora", 2), ("champion", 3), artifact_bytes=5), against(answered, 31, 20, n=700)
    first, second = (judge(asked, scores, {"artifact_bytes": 3}, seed=7).to_json() for _ in range(2))
    assert first == second == json.loads(json.dumps(first))
    keys = ["name", "verdict", "estimate", "low", "high", "threshold", "reason", "lost", "won", "p_value"]
    keys.append("claim_p_value")
    assert all(list(gate) == keys for gate in first["gates"])
    assert [(gate["lost"], gate["won"]) for gate in first["gates"]] == [(31, 20), (31, 20), (None, None)]
    assert first["gates"][0]["estimate"] == -1.5714
    assert first["gates"][0]["low"] == first["gates"][1]["low"]  # every gate starts from the same seed
    assert first["gates"][2]["estimate"] == 3 and isinstance(first["gates"][2]["estimate"], int)
