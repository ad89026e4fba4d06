"""What a run took over from earlier ones, and what it cost, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.costs import total_of
from pipelines.digests import short
from pipelines.evaluation.comparisons import IN_WORDS

Record = Mapping[str, Any]


def baseline_lines(record: Record, news_only: bool = False) -> list[str]:
    """One sentence per trained baseline: tuned now, or when and by which run, and why earlier weights were not kept.

    With `news_only` those that say no more than that a baseline was tuned, or tuned before on the same data, are left
    out.
    """
    told = (record.get("baselines") or {}).items()
    lines = [
        f"{IN_WORDS[name]}: {_origin(each)}"
        for name, each in told
        if not news_only or each["how"] == "kept" or each["why"]
    ]
    return [f"{line[0].upper()}{line[1:]}" for line in lines]


def start_line(record: Record) -> str:
    """Where the prompt's training began, where it could have been a champion's."""
    start = record.get("start")
    if not start:
        return ""
    if start["why_not"]:
        return f"Cold start: {start['why_not']}."
    return f"Warm start: from version {start['version']}, prompt {short(start['prompt'])}."


def cost_line(record: Record) -> str:
    """What a run cost in all, and at which power the energy is estimated; empty where nobody counted."""
    cost = record.get("cost")
    if not cost:
        return ""
    gpu = f", {cost['gpu_watts']:g} W for a GPU" if cost["total"]["gpu_seconds"] else ""
    return f"In all {total_of(cost)}, at {cost['core_watts']:g} W for a busy core{gpu}."


def _origin(lineage: Record) -> str:
    """Where a baseline's weights come from, in words."""
    if lineage["how"] == "kept":
        return f"reused from run {short(lineage['run'])}, {_age(lineage['age_days'])}"
    if lineage["how"] == "recalled":
        return f"from the store, tuned on these very data, {_age(lineage['age_days'])}"
    return f"trained now: {lineage['why']}" if lineage["why"] else "trained now"


def _age(days: float | None) -> str:
    if days is None:
        return "nobody wrote down when"
    return f"{days:.0f} days old" if days >= 1 else "less than a day old"
