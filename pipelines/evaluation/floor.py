"""What whoever learns nothing would reach: the share of the commonest label among the test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.scores import Scores


def commonest(scores: Scores, labels: Sequence[str]) -> dict[str, Any]:
    """`{label, share}` of the label that most test examples have; the share is a fraction, 0..1."""
    counts = np.bincount(scores.label, minlength=len(labels))
    return {"label": labels[int(counts.argmax())], "share": float(counts.max() / len(scores))}


def floor_line(record: Mapping[str, Any]) -> str:
    """A warning where a run's prompt is not proven to be better than one answer for everything; else nothing."""
    floor, prompt = record.get("commonest"), (record.get("scores") or {}).get("prompt")
    if not floor or not prompt or prompt["low"] > floor["share"]:
        return ""
    return (
        f"answering {floor['label']!r} to everything would be right on {100 * floor['share']:.1f} % of the test "
        f"examples; the prompt, at {100 * prompt['accuracy']:.1f} %, is not proven to be better"
    )
