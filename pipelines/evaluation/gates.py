"""Gates: what must hold before a prompt may be promoted, and the verdict with its reason.

A non-inferiority gate compares example by example and has three ends. *Passed*: the lower bound stays inside the
margin. *Refused*: even the upper bound does not, so the prompt is worse than the recipe allows. *Inconclusive*: the
test set is too small to tell, and the reason says how many examples would be enough. A verdict is a report, never an
exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.errors import DataError, listed
from pipelines.evaluation.scores import Scores, paired
from pipelines.evaluation.statistics import Interval, examples_needed, paired_bootstrap
from pipelines.recipe import Gates, NonInferiority

Outcome = Literal["passed", "inconclusive", "refused"]
Numbers = int | float

POINTS = 100.0  # one example, right or wrong, in points of accuracy
IN_WORDS = {"lora": "LoRA", "full": "full fine-tuning", "champion": "the champion"}


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome. Non-inferiority: points of accuracy, prompt minus the other, threshold the negative margin.

    A budget has an estimate and a threshold in its own units and no interval; a gate with nothing to compare has no
    numbers at all.
    """

    name: str
    verdict: Outcome
    estimate: Numbers | None
    low: float | None
    high: float | None
    threshold: Numbers | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """All gates together: refused if one refused, else inconclusive if one could not tell, else passed."""

    verdict: Outcome
    reason: str
    gates: tuple[GateResult, ...]

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON, fractions rounded to four digits."""
        return {"verdict": self.verdict, "reason": self.reason, "gates": [_rounded(gate) for gate in self.gates]}


def judge(gates: Gates, scores: Mapping[str, Scores], costs: Mapping[str, int], seed: int) -> Verdict:
    """Whether a prompt may be promoted.

    Args:
        gates: what the recipe asks for.
        scores: on the same test examples: `prompt`, and every `lora`, `full`, `champion` that a gate compares it with.
            Without a `champion` nobody reigns yet, and a gate against it is passed.
        costs: of the prompt: `artifact_bytes` and `trainable_params`, where the recipe has a budget for them.
        seed: of the bootstrap; every gate starts from it, so that their order changes nothing.

    Raises:
        DataError: scores or costs that a gate needs are missing, or two models were scored on different examples.
    """
    results = [_non_inferior(gate, gates, scores, seed) for gate in gates.non_inferior]
    results += [_budget(name, limit, costs) for name, limit in gates.budgets if limit is not None]
    if not results:
        return Verdict("inconclusive", "inconclusive: the recipe names no gates, so nothing was proven", ())
    order: tuple[Outcome, ...] = ("refused", "inconclusive", "passed")
    verdict = min((gate.verdict for gate in results), key=order.index)
    decisive = [gate.reason for gate in results if gate.verdict == verdict]
    return Verdict(verdict, f"{verdict}: {'; '.join(decisive)}", tuple(results))


def _non_inferior(gate: NonInferiority, gates: Gates, scores: Mapping[str, Scores], seed: int) -> GateResult:
    """Whether the prompt trails `gate.to` by less than the margin."""
    name = f"non-inferior to {gate.to}"
    if gate.to == "champion" and "champion" not in scores:
        return GateResult(name, "passed", None, None, None, None, "there is no champion on these labels yet")
    if missing := {"prompt", gate.to} - set(scores):
        raise DataError(
            f"The gate {name!r} needs the scores of {listed(missing)}; there are those of {listed(scores)}."
        )
    prompt, other = paired(scores["prompt"], scores[gate.to])
    difference = POINTS * (prompt.correct.astype(float) - other.correct)  # [n] -100, 0 or 100
    interval = paired_bootstrap(difference, gates.confidence, gates.resamples, seed, largest=POINTS)
    verdict: Outcome
    if interval.low > -gate.margin:
        verdict, advice = "passed", ""
    elif interval.high <= -gate.margin:
        verdict, advice = "refused", ""
    else:
        needed = examples_needed(difference, gate.margin, gates.confidence, largest=POINTS)
        verdict, advice = "inconclusive", _advice(len(prompt), needed)
    reason = _comparison(gate, interval, gates.confidence, verdict) + advice
    return GateResult(name, verdict, interval.estimate, interval.low, interval.high, -gate.margin, reason)


def _budget(name: str, limit: int, costs: Mapping[str, int]) -> GateResult:
    """Whether the prompt costs no more than `limit`."""
    if name not in costs:
        raise DataError(f"The recipe has a budget for {name!r}, but the costs tell only {listed(costs)}.")
    cost, words = costs[name], name.replace("_params", " parameters").replace("_", " ")
    verdict: Outcome = "passed" if cost <= limit else "refused"
    return GateResult(f"budget of {words}", verdict, cost, None, None, limit, f"{cost:,} {words} of {limit:,} allowed")


def _comparison(gate: NonInferiority, interval: Interval, confidence: float, verdict: Outcome) -> str:
    """How far the prompt is ahead or behind, with the bound that decided."""
    points = round(interval.estimate, 1)
    standing = f"{abs(points):.1f} points {'behind' if points < 0 else 'ahead of'}" if points else "level with"
    side, bound = ("at best", interval.high) if verdict == "refused" else ("at worst", interval.low)
    return (
        f"{standing} {IN_WORDS[gate.to]} ({side} {bound:+.2f} at {100 * confidence:g} % confidence), "
        f"the recipe allows {gate.margin:g}"
    )


def _advice(n: int, needed: int | None) -> str:
    """What to do about a test set that cannot tell."""
    if needed is None:
        return f", and {n:,} test examples cannot tell whether it is really that far behind"
    return f": {n:,} test examples are too few to tell, about {needed:,} would be enough"


def _rounded(gate: GateResult) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(gate).items()}
