"""Comparisons: two sets of answers to the same examples, and what the difference between them proves.

Of classes a difference is in points of accuracy, of written texts in points of the recipe's metric.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.evaluation.exact import claim_p_value
from pipelines.evaluation.outcome import GateResult, Outcome
from pipelines.evaluation.scores import Scores, paired
from pipelines.evaluation.statistics import Interval, enough, examples_to_decide, mcnemar, paired_bootstrap
from pipelines.evaluation.text_bootstrap import text_difference
from pipelines.evaluation.texts import METRICS, TextScores, paired_texts
from pipelines.recipe import Gates, NonInferiority, Robustness, Superiority

POINTS = 100.0  # one example, right or wrong, in points of accuracy
POWER = 0.8  # how often as many examples as a verdict names would decide
IN_WORDS = {
    "lora": "LoRA",
    "adapters": "adapters",
    "full": "full fine-tuning",
    "head_only": "the head alone",
    "zero_shot": "the untouched base",
    "champion": "the champion",
}


@dataclass(frozen=True)
class Claim:
    """What a gate wants proven: that the prompt is ahead of the other by more than `threshold` points."""

    name: str
    threshold: float  # negative: by how much it may trail
    other: str  # in words
    asks: str  # what the recipe asks for, in words


def claim_of(gate: NonInferiority | Superiority) -> Claim:
    """What a comparison with another model wants proven."""
    other = IN_WORDS[gate.to]
    if isinstance(gate, Superiority):
        return Claim(f"superior to {gate.to}", gate.margin, other, f"asks for more than {gate.margin:g} ahead")
    return Claim(f"non-inferior to {gate.to}", -gate.margin, other, f"allows {gate.margin:g}")


def claim_of_robustness(gate: Robustness) -> Claim:
    """What a gate on disturbed texts wants proven."""
    rate = f" ({100 * gate.rate:g} %)" if gate.rate is not None else ""
    beside = f" beside {gate.beside}" if gate.beside else ""
    other = (
        f"{IN_WORDS[gate.beside]} on the same disturbed texts" if gate.beside else "its answers to undisturbed texts"
    )
    return Claim(f"robust to {gate.to}{rate}{beside}", -gate.margin, other, f"allows {gate.margin:g}")


def proven(
    claim: Claim, prompt: Scores | TextScores, other: Scores | TextScores, gates: Gates, seed: int
) -> GateResult:
    """Whether the prompt's answers prove the claim, by the bounds of `paired_bootstrap` at `gates.confidence`."""
    if isinstance(prompt, TextScores) and isinstance(other, TextScores):
        return _proven_by_texts(claim, prompt, other, gates, seed)
    assert isinstance(prompt, Scores) and isinstance(other, Scores)
    prompt, other = paired(prompt, other)
    difference = POINTS * (prompt.correct.astype(float) - other.correct)  # [n] -100, 0 or 100
    interval = paired_bootstrap(difference, gates.confidence, gates.resamples, seed, largest=POINTS)
    verdict, advice = _verdict(claim, interval), ""
    if verdict == "inconclusive":
        needed = examples_to_decide(difference, claim.threshold, gates.confidence, largest=POINTS)
        advice = _advice(len(prompt), needed)
    lost, won = int((difference < 0).sum()), int((difference > 0).sum())
    return GateResult(
        claim.name, verdict, interval.estimate, interval.low, interval.high, claim.threshold,
        _reason(claim, interval, gates.confidence, verdict) + advice, lost, won, mcnemar(lost, won),
        claim_p_value(lost, won, len(prompt), claim.threshold / POINTS),
    )  # fmt: skip


def _proven_by_texts(claim: Claim, prompt: TextScores, other: TextScores, gates: Gates, seed: int) -> GateResult:
    """The same of written texts, by the recipe's metric; no example is simply lost or won there."""
    assert gates.metric is not None
    prompt, other = paired_texts(prompt, other)
    found = text_difference(prompt, other, gates.metric, gates.confidence, gates.resamples, seed)
    interval, verdict, advice = found.interval, _verdict(claim, found.interval), ""
    if verdict == "inconclusive":
        gap = abs(interval.estimate - claim.threshold)
        needed = enough(gap, found.variance, gates.confidence, POWER, largest=POINTS) if gap else None
        advice = _advice(len(prompt), needed)
    reason = _reason(claim, interval, gates.confidence, verdict, f" of {METRICS[gates.metric]}") + advice
    return GateResult(
        claim.name, verdict, interval.estimate, interval.low, interval.high, claim.threshold, reason
    )  # fmt: skip


def _verdict(claim: Claim, interval: Interval) -> Outcome:
    if interval.low > claim.threshold:
        return "passed"
    return "refused" if interval.high <= claim.threshold else "inconclusive"


def _reason(claim: Claim, interval: Interval, confidence: float, verdict: Outcome, unit: str = "") -> str:
    """How far the prompt is ahead or behind, with the bound that decided."""
    points = round(interval.estimate, 1)
    standing = f"{abs(points):.1f} points{unit} {'behind' if points < 0 else 'ahead of'}" if points else "level with"
    side, bound = ("at best", interval.high) if verdict == "refused" else ("at worst", interval.low)
    return (
        f"{standing} {claim.other} ({side} {bound:+.2f} at {100 * confidence:g} % confidence), the recipe {claim.asks}"
    )


def _advice(n: int, needed: int | None) -> str:
    """What to do about a test set that cannot tell."""
    if needed is None:
        return f": it lies exactly there, and no number of test examples beyond these {n:,} can be named"
    return f": {n:,} test examples are too few to tell, about {max(1, needed - n):,} more would decide"
