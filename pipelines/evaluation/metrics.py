"""How good one model is: accuracy with its interval, macro F1 and calibration error; or the metrics of its texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from pipelines.errors import DataError
from pipelines.evaluation.calibration import calibration_error
from pipelines.evaluation.scores import Scores
from pipelines.evaluation.text_bootstrap import text_interval
from pipelines.evaluation.texts import METRICS, TextScores, bleu_signature, corpus_score


def summary(scores: Scores, confidence: float = 0.95) -> dict[str, float | int]:
    """`accuracy` with its two-sided interval `low`..`high`, `macro_f1`, `ece` and the number of examples `n`.

    All but n are fractions, 0..1.

    Raises:
        DataError: there are no examples.
    """
    if not len(scores):
        raise DataError("Cannot measure a model on 0 examples: score at least one.")
    right = int(scores.correct.sum())
    low, high = wilson(right, len(scores), confidence)
    accuracy = {"accuracy": right / len(scores), "low": low, "high": high}
    return {**accuracy, "macro_f1": macro_f1(scores), "ece": calibration_error(scores), "n": len(scores)}


def text_summary(scores: TextScores, metric: str) -> dict[str, Any]:
    """`metric`, its `score` with the two-sided 95 % interval `low`..`high`, every other metric, and counts.

    `n` examples had `references` in all; `signature` says how BLEU was computed. All figures are fractions, 0..1.
    """
    low, high = text_interval(scores, metric)
    found = {name: corpus_score(scores, name) for name in METRICS}
    counts = {"n": len(scores), "references": sum(map(len, scores.references))}
    return {"metric": metric, "score": found[metric], "low": low, "high": high, **found, **counts,
            "signature": bleu_signature()}  # fmt: skip


def by_value(scores: Mapping[str, Scores], values: Mapping[str, str]) -> dict[str, dict[str, dict[str, int]]]:
    """`{value: {method: {"right", "n"}}}`: how each method does on the test examples that share a value.

    Args:
        scores: by method, on the same examples.
        values: `{id: value}` of every example.
    """
    found: dict[str, dict[str, dict[str, int]]] = {value: {} for value in sorted(set(values.values()))}
    for method, each in scores.items():
        rows = Counter(values[example] for example in each.ids)
        right = Counter(values[example] for example, correct in zip(each.ids, each.correct, strict=True) if correct)
        for value, told in found.items():
            told[method] = {"right": right[value], "n": rows[value]}
    return found


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """The two-sided interval for a proportion, by the score test: never outside 0..1, never empty at 0 or n successes.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n) / (1 + z2 / n)
    # At 0 and n successes the bound is exactly 0 or 1; rounding must not leave the estimate outside its interval.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def macro_f1(scores: Scores) -> float:
    """The F1 of every class that occurs, as a label or as an answer, averaged with equal weights; 0..1."""
    classes = int(max(scores.label.max(), scores.prediction.max())) + 1
    hits = np.bincount(scores.label[scores.correct], minlength=classes)  # [C]
    seen = np.bincount(scores.label, minlength=classes) + np.bincount(scores.prediction, minlength=classes)  # [C]
    occurs = seen > 0
    return float((2 * hits[occurs] / seen[occurs]).mean())
