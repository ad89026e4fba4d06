"""Guards: what must not go wrong beside accuracy, refused on evidence alone.

A comparison is a claim that has to be proven. A guard is the other way round: it *passes* where the estimate keeps the
limit, is *refused* where the limit is proven to be broken, and is *inconclusive* between the two. A rare label has too
few test examples to prove that it is answered well, but often enough to prove that it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.calibration import calibration_error, calibration_noise
from pipelines.evaluation.outcome import GateResult, Outcome
from pipelines.evaluation.scores import Scores
from pipelines.evaluation.statistics import binomial_at_most, tries_to_prove_below

FLOOR = "accuracy of every label"
SLICES = "accuracy of every slice"
CALIBRATION = "calibration error"


def every_label(scores: Scores, labels: Sequence[str], floor: float, confidence: float) -> GateResult:
    """Whether no label's test examples are answered rightly less often than `floor`; told of the weakest label.

    A label is proven to be below where so few right answers, or fewer, would come by chance less than
    `(1 - confidence) / labels` of the time were its accuracy the floor: an exact binomial test, its level shared among
    all labels (Bonferroni), so that all of them together are wrongly refused no more often than `1 - confidence`.

    Args:
        scores: of the prompt on the test examples.
        labels: the recipe's, in the order of the logits.
        floor: a fraction, above 0 and below 1.
        confidence: of a refusal.
    """
    rows = np.bincount(scores.label, minlength=len(labels))  # [C]
    right = np.bincount(scores.label[scores.correct], minlength=len(labels))  # [C]
    if unseen := [label for label, n in zip(labels, rows, strict=True) if n == 0]:
        reason = f"the label {unseen[0]!r} has no test examples"
        return GateResult(FLOOR, "inconclusive", None, None, None, floor, reason)
    return _every_group(FLOOR, "label", labels, rows, right, floor, confidence)


def every_slice(scores: Scores, column: str, values: Mapping[str, str], floor: float, confidence: float) -> GateResult:
    """The same for the values of a column, `{id: value}` of every test example: see `every_label`."""
    names, group = np.unique([values[example] for example in scores.ids], return_inverse=True)
    rows = np.bincount(group)  # [values]
    right = np.bincount(group[scores.correct], minlength=len(names))  # [values]
    return _every_group(f"accuracy of every {column}", column, names.tolist(), rows, right, floor, confidence)


def _every_group(
    name: str,
    kind: str,
    labels: Sequence[str],
    rows: NDArray[np.int64],
    right: NDArray[np.int64],
    floor: float,
    confidence: float,
) -> GateResult:
    """Whether no group, each with some `rows`, is answered rightly less often than `floor`."""
    by_chance = [binomial_at_most(int(k), int(n), floor) for k, n in zip(right, rows, strict=True)]
    level = (1 - confidence) / len(labels)
    share = right / rows
    # The weakest label: of those proven to be below, if any, the surest; else the one with the lowest share.
    weakest = int(np.argmin(by_chance)) if min(by_chance) <= level else int(np.argmin(share))
    verdict: Outcome
    if by_chance[weakest] <= level:
        verdict, found = "refused", "is proven below"
    elif share[weakest] < floor:
        verdict, found = "inconclusive", "may by chance be below"
    else:
        verdict, found = "passed", "is not below"
    reason = (
        f"{labels[weakest]!r}, the weakest {kind}, is answered rightly in {100 * share[weakest]:.1f} % of its "
        f"{rows[weakest]:,} test examples, which {found} the {100 * floor:g} % that the recipe asks for"
    )
    if verdict == "inconclusive":
        needed = tries_to_prove_below(float(share[weakest]), floor, level)
        reason += _more(needed - int(rows[weakest]), f"of this {kind}")
    return GateResult(name, verdict, float(share[weakest]), None, None, floor, reason)


def _more(examples: int, of_what: str) -> str:
    """What to do about a test set that cannot tell."""
    return f": about {max(1, examples):,} more test examples {of_what} would decide"


def calibrated(scores: Scores, limit: float, confidence: float, resamples: int, seed: int) -> GateResult:
    """Whether the prompt's probabilities are off by no more than `limit` on average: see `calibration_error`.

    The estimate leans upward, so one inside the limit passes. One beyond it is refused where even the estimate less
    its noise, at this confidence, is beyond it.
    """
    error, noise = calibration_error(scores), calibration_noise(scores, confidence, resamples, seed)
    least = max(0.0, error - noise)
    verdict: Outcome = "passed" if error <= limit else "refused" if least > limit else "inconclusive"
    reason = (
        f"probabilities are off by {100 * error:.1f} points on average (by {100 * least:.1f} at least, at "
        f"{100 * confidence:g} % confidence), the recipe allows {100 * limit:g}"
    )
    if verdict == "inconclusive":
        # Noise falls with the root of the examples; half as much again, and the estimate's own scatter is outrun.
        needed = math.ceil(len(scores) * (1.5 * noise / (error - limit)) ** 2)
        reason += _more(needed - len(scores), "like these")
    return GateResult(CALIBRATION, verdict, error, None, None, limit, reason)
