"""Guards are tested by what they promise: how often a prompt that keeps the limit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.evaluation.gates import judge
from pipelines.evaluation.guards import calibrated, every_label, every_slice
from pipelines.evaluation.outcome import GateResult
from pipelines.evaluation.scores import Scores
from pipelines.evaluation.statistics import binomial_at_most
from pipelines.recipe import Gates

LABELS = ("account", "billing", "shipping")


def answers(right: list[int], wrong: list[int]) -> Scores:
    """Scores in which label i is answered rightly `right[i]` times and wrongly `wrong[i]` times."""
    label = np.repeat(np.arange(len(right)), np.add(right, wrong))
    missed = np.concatenate([np.repeat([0, 1], pair) for pair in zip(right, wrong, strict=True)])
    return made(label, missed.astype(bool), np.full(len(label), 0.9))


def made(label: np.ndarray, missed: np.ndarray, probability: np.ndarray) -> Scores:
    ids = tuple(f"{number:06d}" for number in range(len(label)))
    prediction = np.where(missed, (label + 1) % len(LABELS), label)
    return Scores(ids, label.astype(np.int32), prediction.astype(np.int32), probability.astype(np.float32))


def floor(right: list[int], wrong: list[int], least: float = 0.6) -> GateResult:
    return every_label(answers(right, wrong), LABELS, least, 0.95)


def test_labels_above_the_floor_pass_and_the_weakest_is_named() -> None:
    gate = floor([90, 65, 70], [10, 35, 30])
    assert (gate.name, gate.verdict, gate.threshold) == ("accuracy of every label", "passed", 0.6)
    assert gate.estimate == 0.65 and gate.low is gate.high is None
    assert gate.reason.startswith(
        "'billing', the weakest label, is answered rightly in 65.0 % of its 100 test examples"
    )


def test_a_label_known_to_be_below_refuses() -> None:
    gate = floor([90, 95, 40], [10, 5, 60])
    assert gate.verdict == "refused" and gate.estimate == 0.4
    assert gate.reason.endswith("which is proven below the 60 % that the recipe asks for")


def test_a_label_below_by_chance_is_inconclusive() -> None:
    gate = floor([90, 55, 7], [10, 45, 3])
    assert gate.verdict == "inconclusive" and "'billing'" in gate.reason and "may by chance be below" in gate.reason
    assert floor([90, 1, 70], [10, 2, 30]).verdict == "inconclusive", "three examples prove nothing"


def test_slices_are_guarded_like_labels() -> None:
    scores = answers([90, 95, 40], [10, 5, 60])
    values = {example: LABELS[label] for example, label in zip(scores.ids, scores.label, strict=True)}
    gate = every_slice(scores, "country", values, 0.6, 0.95)
    told = floor([90, 95, 40], [10, 5, 60])
    assert gate.name == "accuracy of every country" and gate.verdict == "refused"
    assert gate.estimate == told.estimate == 0.4
    assert gate.reason == told.reason.replace("weakest label", "weakest country")
    assert every_slice(scores, "all", dict.fromkeys(scores.ids, "-"), 0.6, 0.95).estimate == 0.75


def test_every_column_has_a_gate_of_its_own() -> None:
    scores = answers([90, 95, 40], [10, 5, 60])
    slices = {"country": dict.fromkeys(scores.ids, "de"), "channel": {each: each[-1] for each in scores.ids}}
    verdict = judge(Gates(per_slice_accuracy=0.6), {"prompt": scores}, {}, seed=0, slices=slices)
    assert [gate.name for gate in verdict.gates] == ["accuracy of every country", "accuracy of every channel"]


def test_the_label_that_is_proven_is_told_although_a_rare_one_looks_worse() -> None:
    gate = floor([90, 40, 0], [10, 60, 2])
    assert gate.verdict == "refused" and "'billing'" in gate.reason


def test_a_label_without_test_examples_proves_nothing() -> None:
    gate = floor([90, 0, 70], [10, 0, 30])
    assert (gate.verdict, gate.estimate, gate.reason) == (
        "inconclusive", None, "the label 'billing' has no test examples"
    )  # fmt: skip


def test_labels_that_lie_on_the_floor_are_rarely_refused() -> None:
    """All three together in one case of twenty at most; with a level of 5 % for each it were up to one in seven."""
    rng = np.random.default_rng(2)
    drawn = rng.binomial(200, 0.6, size=(2000, 3))
    refused = np.mean([floor(list(right), list(200 - right)).verdict == "refused" for right in drawn])
    assert 0.02 < refused <= 0.05 + 2 * 0.005


def test_over_10_000_test_sets_too() -> None:
    """The same, by the test that the gate uses: refused where the least likely label is too unlikely."""
    chances = np.array([binomial_at_most(k, 200, 0.6) for k in range(201)])
    drawn = np.random.default_rng(6).binomial(200, 0.6, size=(10_000, 3))
    refused = chances[drawn].min(axis=1) <= 0.05 / 3
    for right, expected in zip(drawn[:200], refused[:200], strict=True):
        assert (floor(list(right), list(200 - right)).verdict == "refused") == expected
    assert 0.02 < refused.mean() <= 0.055


@pytest.mark.parametrize(("right", "n"), [(11, 20), (52, 100), (30, 60)])
def test_with_as_many_more_of_the_label_the_floor_decides(right: int, n: int) -> None:
    """...in four cases of five, were the label answered as rightly as it seems."""
    gate = floor([90, right, 90], [10, n - right, 10])
    assert gate.verdict == "inconclusive"
    more = int(gate.reason.split("about ")[1].split(" more test examples of this label")[0].replace(",", ""))
    drawn = np.random.default_rng(7).binomial(n + more, right / n, size=300)
    verdicts = [floor([90, int(k), 90], [10, int(n + more - k), 10]).verdict for k in drawn]
    assert 0.75 <= np.mean([verdict != "inconclusive" for verdict in verdicts]) <= 0.95


def test_with_as_many_more_examples_the_calibration_is_decided() -> None:
    gate = calibrated(stated(150, 0.17, seed=1), 0.1, 0.95, 1000, 0)
    assert gate.verdict == "inconclusive" and gate.estimate is not None
    more = int(gate.reason.split("about ")[1].split(" more test examples like these")[0].replace(",", ""))
    verdicts = [calibrated(stated(150 + more, gate.estimate, seed), 0.1, 0.95, 500, 0).verdict for seed in range(100)]
    assert np.mean([verdict != "inconclusive" for verdict in verdicts]) >= 0.75


def test_a_model_that_means_what_it_says_passes() -> None:
    gate = calibrated(stated(2000, 0.0), 0.05, 0.95, 2000, 0)
    assert (gate.name, gate.verdict, gate.threshold) == ("calibration error", "passed", 0.05)
    assert gate.estimate is not None and 0 < gate.estimate < 0.04


def test_a_model_far_too_sure_is_refused_and_with_few_examples_inconclusive() -> None:
    gate = calibrated(stated(2000, 0.2), 0.05, 0.95, 2000, 0)
    assert gate.verdict == "refused" and gate.estimate == pytest.approx(0.2, abs=0.03)
    assert "probabilities are off by " in gate.reason and gate.reason.endswith("the recipe allows 5")
    assert calibrated(stated(60, 0.2), 0.15, 0.95, 2000, 0).verdict == "inconclusive"


@pytest.mark.parametrize("repetitions", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_model_whose_error_is_the_limit_is_rarely_refused(repetitions: int) -> None:
    verdicts = [calibrated(stated(600, 0.1, seed), 0.1, 0.95, 200, seed).verdict for seed in range(repetitions)]
    assert verdicts.count("refused") <= 0.055 * repetitions
    assert "inconclusive" in verdicts


def stated(n: int, too_sure: float, seed: int = 0) -> Scores:
    """Answers with probabilities of 0.7 to 1, right as often as that less `too_sure`."""
    rng = np.random.default_rng(seed)
    probability = rng.uniform(0.7, 1.0, n).astype(np.float32)
    return made(rng.integers(3, size=n), rng.random(n) >= probability - too_sure, probability)


def test_the_judge_asks_the_guards_that_the_recipe_names() -> None:
    scores = {"prompt": answers([90, 95, 40], [10, 5, 60])}
    verdict = judge(Gates(per_label_accuracy=0.6, max_ece=0.3), scores, {}, seed=0, labels=LABELS)
    assert [(gate.name, gate.verdict) for gate in verdict.gates] == [
        ("accuracy of every label", "refused"), ("calibration error", "passed")
    ]  # fmt: skip
    assert verdict.verdict == "refused" and "'shipping'" in verdict.reason
    for gates in (Gates(per_label_accuracy=0.6), Gates(max_ece=0.1)):
        with pytest.raises(DataError, match="needs the scores of 'prompt'"):
            judge(gates, {}, {}, seed=0, labels=LABELS)
