"""Gates: what must hold before a prompt may be promoted, and the verdict with its reason.

A comparison (non-inferiority, superiority, robustness) goes example by example and has three ends. *Passed*: the lower
bound of the difference is beyond the threshold. *Refused*: even the upper bound is not, so the prompt is worse than the
recipe allows. *Inconclusive*: the test set is too small to tell, and the reason says how many more would decide.
Guards have three ends too: see `guards.py`. A verdict is a report, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import DataError, listed
from pipelines.evaluation.comparisons import claim_of, claim_of_robustness, proven
from pipelines.evaluation.guards import CALIBRATION, FLOOR, SLICES, calibrated, every_label, every_slice
from pipelines.evaluation.outcome import GateResult, Outcome
from pipelines.evaluation.scores import Scores, among
from pipelines.recipe import Budgets, Gates, NonInferiority, Robustness, Superiority

NO_CHAMPION = "there is no champion on these labels yet"


@dataclass(frozen=True)
class Verdict:
    """All gates together: refused if one refused, else inconclusive if one could not tell, else passed."""

    verdict: Outcome
    reason: str
    gates: tuple[GateResult, ...]

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON, fractions rounded to four digits."""
        return {"verdict": self.verdict, "reason": self.reason, "gates": [gate.to_json() for gate in self.gates]}


def judge(
    gates: Gates,
    scores: Mapping[str, Any],
    costs: Mapping[str, Any],
    seed: int,
    labels: Sequence[str] = (),
    no_champion: str = NO_CHAMPION,
    slices: Mapping[str, Mapping[str, str]] | None = None,
    disturbed: Mapping[str, Mapping[str, Scores]] | None = None,
) -> Verdict:
    """Whether a prompt may be promoted.

    Args:
        gates: what the recipe asks for.
        scores: `Scores`, or `TextScores` where the recipe has a metric, on the same test examples: `prompt`, and every
            baseline and `champion` that a gate compares it with. Without a `champion` there is nothing to compare with,
            and a gate against it is passed; its scores may be of fewer examples: those that it has not learnt from.
        costs: of the prompt: `artifact_bytes`, `trainable_params`, and the figures of `latency.measure`, where the
            recipe has a budget for them.
        seed: of the bootstrap; every gate starts from it, so that their order changes nothing.
        labels: the recipe's, in the order of the logits; needed where a gate looks at every label.
        no_champion: why there are no scores of a `champion`, where there are none; the gate's reason.
        slices: `{column: {id: value}}` of the test examples; needed where a gate looks at every slice.
        disturbed: `{gate: scores}` of the same examples with their texts disturbed, by the name of the gate that looks
            at them: `prompt`, and the method that it is held against.

    Raises:
        DataError: scores or costs that a gate needs are missing, or two models were scored on different examples.
    """
    results = [_compared(gate, gates, scores, seed, no_champion) for gate in gates.comparisons]
    results += [
        _robust(gate, gates, scores, (disturbed or {}).get(claim_of_robustness(gate).name, {}), seed)
        for gate in gates.robust
    ]
    if gates.per_label_accuracy is not None:
        _require("prompt", scores, FLOOR)
        results.append(every_label(scores["prompt"], labels, gates.per_label_accuracy, gates.confidence))
    if gates.per_slice_accuracy is not None:
        _require("prompt", scores, SLICES)
        results += [
            every_slice(scores["prompt"], column, values, gates.per_slice_accuracy, gates.confidence)
            for column, values in (slices or {}).items()
        ]
    if gates.max_ece is not None:
        _require("prompt", scores, CALIBRATION)
        results.append(calibrated(scores["prompt"], gates.max_ece, gates.confidence, gates.resamples, seed))
    results += list(_budgets(gates.budgets, costs))
    if not results:
        return Verdict("inconclusive", "inconclusive: the recipe names no gates, so nothing was proven", ())
    order: tuple[Outcome, ...] = ("refused", "inconclusive", "passed")
    verdict = min((gate.verdict for gate in results), key=order.index)
    decisive = [gate.reason for gate in results if gate.verdict == verdict]
    return Verdict(verdict, f"{verdict}: {'; '.join(decisive)}", tuple(results))


def _compared(
    gate: NonInferiority | Superiority, gates: Gates, scores: Mapping[str, Any], seed: int, no_champion: str
) -> GateResult:
    """Whether the prompt trails `gate.to` by less than the margin, or is ahead of it by more."""
    claim = claim_of(gate)
    if gate.to == "champion" and "champion" not in scores:
        return GateResult(claim.name, "passed", None, None, None, None, no_champion)
    for who in ("prompt", gate.to):
        _require(who, scores, claim.name)
    return proven(claim, *_on_fair_examples(scores, gate.to), gates, seed)


def _robust(
    gate: Robustness, gates: Gates, scores: Mapping[str, Scores], disturbed: Mapping[str, Scores], seed: int
) -> GateResult:
    """Whether disturbed texts cost the prompt less than the margin."""
    claim = claim_of_robustness(gate)
    _require("prompt", disturbed, claim.name)
    held_against, who = (disturbed, gate.beside) if gate.beside else (scores, "prompt")
    _require(who, held_against, claim.name)
    return proven(claim, disturbed["prompt"], held_against[who], gates, seed)


def _on_fair_examples(scores: Mapping[str, Any], to: str) -> tuple[Any, Any]:
    """The prompt's scores and the other's: of a champion only on the examples that it has not learnt from."""
    other = scores[to]
    return (among(scores["prompt"], other.ids) if to == "champion" else scores["prompt"]), other


def _require(who: str, scores: Mapping[str, Any], gate: str) -> None:
    """Refuse to judge without the scores that a gate is about."""
    if who not in scores:
        raise DataError(f"The gate {gate!r} needs the scores of {who!r}; there are those of {listed(scores)}.")


def _budgets(budgets: Budgets, costs: Mapping[str, Any]) -> Iterator[GateResult]:
    """Whether the prompt costs no more than each limit."""
    for key in ("artifact_bytes", "trainable_params"):
        if (limit := getattr(budgets, key)) is not None:
            words = key.replace("_params", " parameters").replace("_", " ")
            cost = _cost(key, costs)
            yield _budget(f"budget of {words}", cost, limit, f"{cost:,} {words} of {limit:,} allowed")
    if budgets.added_latency_ms is not None:
        yield _added_latency(budgets.added_latency_ms, budgets.latency_tokens, costs)


def _budget(name: str, cost: int, limit: int, reason: str) -> GateResult:
    return GateResult(name, "passed" if cost <= limit else "refused", cost, None, None, limit, reason)


def _added_latency(limit: float, tokens: int, costs: Mapping[str, Any]) -> GateResult:
    """Whether the prompt adds no more than `limit` ms to an answer: like a guard, refused only where that is proven."""
    added, base, least = (_cost(f"{key}_ms", costs) for key in ("added_latency", "base_latency", "added_latency_low"))
    verdict: Outcome = "passed" if added <= limit else "refused" if least > limit else "inconclusive"
    reason = (
        f"{added:.2f} ms (at least {least:.2f}) added to the {base:.2f} ms in which the base alone answers a text of "
        f"{tokens} tokens, {limit:g} allowed"
    )
    return GateResult("budget of added latency", verdict, added, None, None, limit, reason)


def _cost(key: str, costs: Mapping[str, Any]) -> Any:
    if key not in costs:
        raise DataError(f"The recipe has a budget for {key!r}, but the costs tell only {listed(costs)}.")
    return costs[key]
