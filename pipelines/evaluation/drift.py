"""A run's drift, told in rows and sentences: the same at the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]

DRIFTED = ("Distance", "Found", "By chance", "Low", "High", "Threshold", "Moved")
TO_FOLLOW = {
    "note": "It was noted, as the recipe asks, and changed nothing else",
    "refuse": "The recipe refuses such data",
    "refresh": "The recipe has its baselines trained anew",
}


def drift_rows(record: Record) -> list[list[str]]:
    """One row per distance, as text under `DRIFTED`."""
    return [
        [each["title"], *(f"{each[key]:.3f}" for key in ("estimate", "chance", "low", "high")),
         f"{each['threshold']:g}", outcome(each)]
        for each in (record.get("drift") or {}).get("measures", [])
    ]  # fmt: skip


def outcome(measure: Mapping[str, Any]) -> str:
    """`yes`, `not proven` (beyond the threshold, less what chance makes on average) or `no`."""
    beyond = measure["estimate"] - measure["chance"] > measure["threshold"]
    return "yes" if measure["moved"] else "not proven" if beyond else "no"


def moved_lines(record: Record) -> list[str]:
    """What moved, and how."""
    measures = (record.get("drift") or {}).get("measures", [])
    return [f"{each['title']} {each['reason']}" for each in measures if each["moved"]]


def drift_lines(record: Record) -> list[str]:
    """What else is to be said of drift and of leaks across time; nothing where nobody asked, or nothing happened."""
    lines = []
    if drift := record.get("drift"):
        lines += [TO_FOLLOW[drift["then"]]] if drift["moved"] else []
        lines += [drift["why_not"]] if drift["why_not"] else []
    if seen := record.get("seen_by_champion"):
        who = f"the champion (version {seen['version']})"
        if seen["examples"]:
            lines.append(
                f"{who} learnt from {seen['examples']:,} of the {seen['of']:,} test examples, and was compared on the "
                "others alone"
            )
        if seen["why_not"]:
            lines.append(f"nobody can tell which of the test examples {who} learnt from: {seen['why_not']}")
    return lines


def compared_with(record: Record) -> str:
    """Which examples the distances are between; empty where there are none."""
    drift = record.get("drift") or {}
    if not (against := drift.get("against")):
        return ""
    rows = drift["rows"]
    return (
        f"{rows['sampled'][1]:,} of this run's {rows['after']:,} training and validation examples against "
        f"{rows['sampled'][0]:,} of the {rows['before']:,} of the champion (version {against['version']})"
    )
