"""Gates: what must hold before a prompt may be promoted, and the verdict with its reason.

A comparison (non-inferiority, superiority) goes example by example and has three ends. *Passed*: the lower bound of
the difference is beyond the threshold. *Refused*: even the upper bound is not, so the prompt is worse than the recipe
allows. *Inconclusive*: the test set is too small to tell, and the reason says how many examples would be enough.
Guards have three ends too: see `guards.py`. A verdict is a report, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import DataError, listed
from pipelines.evaluation.guards import CALIBRATION, FLOOR, SLICES, calibrated, every_label, every_slice
from pipelines.evaluation.outcome import GateResult, Outcome
from pipelines.evaluation.scores import Scores, among, paired
from pipelines.evaluation.statistics import Interval, examples_needed, mcnemar, paired_bootstrap
from pipelines.recipe import Gates, NonInferiority, Superiority

Comparison = NonInferiority | Superiority

POINTS = 100.0  # one example, right or wrong, in points of accuracy
IN_WORDS = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    "head_only": "the head alone",
    "zero_shot": "the untouched base",
    "champion": "the champion",
}
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
    scores: Mapping[str, Scores],
    costs: Mapping[str, int],
    seed: int,
    labels: Sequence[str] = (),
    no_champion: str = NO_CHAMPION,
    slices: Mapping[str, Mapping[str, str]] | None = None,
) -> Verdict:
    """Whether a prompt may be promoted.

    Args:
        gates: what the recipe asks for.
        scores: on the same test examples: `prompt`, and every baseline and `champion` that a gate compares it with.
            Without a `champion` there is nothing to compare with, and a gate against it is passed; its scores may be of
            fewer examples: those that it has not learnt from.
        costs: of the prompt: `artifact_bytes` and `trainable_params`, where the recipe has a budget for them.
        seed: of the bootstrap; every gate starts from it, so that their order changes nothing.
        labels: the recipe's, in the order of the logits; needed where a gate looks at every label.
        no_champion: why there are no scores of a `champion`, where there are none; the gate's reason.
        slices: `{column: {id: value}}` of the test examples; needed where a gate looks at every slice.

    Raises:
        DataError: scores or costs that a gate needs are missing, or two models were scored on different examples.
    """
    results = [_compared(gate, gates, scores, seed, no_champion) for gate in gates.comparisons]
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
    results += [_budget(name, limit, costs) for name, limit in gates.budgets if limit is not None]
    if not results:
        return Verdict("inconclusive", "inconclusive: the recipe names no gates, so nothing was proven", ())
    order: tuple[Outcome, ...] = ("refused", "inconclusive", "passed")
    verdict = min((gate.verdict for gate in results), key=order.index)
    decisive = [gate.reason for gate in results if gate.verdict == verdict]
    return Verdict(verdict, f"{verdict}: {'; '.join(decisive)}", tuple(results))


def name_of(gate: Comparison) -> str:
    """What a comparison is called in every report."""
    return f"{'superior' if isinstance(gate, Superiority) else 'non-inferior'} to {gate.to}"


def _compared(gate: Comparison, gates: Gates, scores: Mapping[str, Scores], seed: int, no_champion: str) -> GateResult:
    """Whether the prompt trails `gate.to` by less than the margin, or is ahead of it by more."""
    name = name_of(gate)
    if gate.to == "champion" and "champion" not in scores:
        return GateResult(name, "passed", None, None, None, None, no_champion)
    for who in ("prompt", gate.to):
        _require(who, scores, name)
    prompt, other = paired(*_on_fair_examples(scores, gate.to))
    difference = POINTS * (prompt.correct.astype(float) - other.correct)  # [n] -100, 0 or 100
    interval = paired_bootstrap(difference, gates.confidence, gates.resamples, seed, largest=POINTS)
    threshold = gate.margin if isinstance(gate, Superiority) else -gate.margin
    verdict: Outcome
    if interval.low > threshold:
        verdict, advice = "passed", ""
    elif interval.high <= threshold:
        verdict, advice = "refused", ""
    else:
        needed = examples_needed(difference, -threshold, gates.confidence, largest=POINTS)
        verdict, advice = "inconclusive", _advice(gate, len(prompt), needed)
    reason = _comparison(gate, interval, gates.confidence, verdict) + advice
    lost, won = int((difference < 0).sum()), int((difference > 0).sum())
    return GateResult(
        name, verdict, interval.estimate, interval.low, interval.high, threshold, reason, lost, won, mcnemar(lost, won)
    )


def _on_fair_examples(scores: Mapping[str, Scores], to: str) -> tuple[Scores, Scores]:
    """The prompt's scores and the other's: of a champion only on the examples that it has not learnt from."""
    other = scores[to]
    return (among(scores["prompt"], other.ids) if to == "champion" else scores["prompt"]), other


def _require(who: str, scores: Mapping[str, Scores], gate: str) -> None:
    """Refuse to judge without the scores that a gate is about."""
    if who not in scores:
        raise DataError(f"The gate {gate!r} needs the scores of {who!r}; there are those of {listed(scores)}.")


def _budget(name: str, limit: int, costs: Mapping[str, int]) -> GateResult:
    """Whether the prompt costs no more than `limit`."""
    if name not in costs:
        raise DataError(f"The recipe has a budget for {name!r}, but the costs tell only {listed(costs)}.")
    cost, words = costs[name], name.replace("_params", " parameters").replace("_", " ")
    verdict: Outcome = "passed" if cost <= limit else "refused"
    return GateResult(f"budget of {words}", verdict, cost, None, None, limit, f"{cost:,} {words} of {limit:,} allowed")


def _comparison(gate: Comparison, interval: Interval, confidence: float, verdict: Outcome) -> str:
    """How far the prompt is ahead or behind, with the bound that decided."""
    points = round(interval.estimate, 1)
    standing = f"{abs(points):.1f} points {'behind' if points < 0 else 'ahead of'}" if points else "level with"
    side, bound = ("at best", interval.high) if verdict == "refused" else ("at worst", interval.low)
    asks = f"asks for more than {gate.margin:g} ahead" if isinstance(gate, Superiority) else f"allows {gate.margin:g}"
    return (
        f"{standing} {IN_WORDS[gate.to]} ({side} {bound:+.2f} at {100 * confidence:g} % confidence), the recipe {asks}"
    )


def _advice(gate: Comparison, n: int, needed: int | None) -> str:
    """What to do about a test set that cannot tell."""
    if needed is None:
        doubt = "no further ahead" if isinstance(gate, Superiority) else "that far behind"
        return f", and {n:,} test examples cannot tell whether it is really {doubt}"
    return f": {n:,} test examples are too few to tell, about {needed:,} would be enough"
