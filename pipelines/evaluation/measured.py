"""What a run's first figure is: accuracy, or the metric that its gates compare written texts by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.evaluation.texts import METRICS

Record = Mapping[str, Any]


def metric_of(record: Record) -> str | None:
    """The metric that a run's gates compare texts by; None where they compare right and wrong answers."""
    metric: str | None = ((record.get("settings") or {}).get("gates") or {}).get("metric")
    return metric


def measured(record: Record) -> str:
    """What a run's first figure is, in words: accuracy, or the metric of its texts."""
    metric = metric_of(record)
    return "Accuracy" if metric is None else METRICS[metric]


def in_a_sentence(record: Record) -> str:
    """The same in the midst of a sentence."""
    name = measured(record)
    return name if name.isupper() or "-" in name else f"{name[0].lower()}{name[1:]}"


def headline(scores: Mapping[str, Any]) -> float | None:
    """The figure of a summary that its interval is of, a fraction: accuracy, or the recipe's metric of texts."""
    figure: float | None = scores.get("score", scores.get("accuracy"))
    return figure
