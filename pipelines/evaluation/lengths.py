"""What of the texts the base never read: how many lost their end, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cut_lines(record: Mapping[str, Any]) -> list[str]:
    """A line for each split of a run in which texts or targets are longer than the recipe lets them be."""
    settings = record.get("settings") or {}
    most = (settings.get("template") or {}).get("max_tokens")
    written = (settings.get("head") or {}).get("max_new_tokens")
    lines = []
    for split, found in (record.get("tokens") or {}).items():
        if found["truncated"]:
            lines.append(
                f"{split}: {found['truncated']:,} of {found['rows']:,} texts lost their end, being longer than "
                f"template.max_tokens = {most}"
            )
        if found["targets_cut"]:
            lines.append(
                f"{split}: {found['targets_cut']:,} of {found['rows']:,} targets lost their end, being longer than "
                f"head.max_new_tokens = {written}"
            )
    return lines
