"""The part of a run's page that tells of drift: distances against their thresholds, labels and lengths before and now.

Words are texts: they are shown only where the page is made for whoever may read the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.errors import NotInStore
from pipelines.evaluation.drift import compared_with, drift_lines, outcome
from pipelines.evaluation.pages.figures import ROW, plain
from pipelines.evaluation.pages.svg import LEFT, RIGHT, Scale, bar_across, dot, down, drawing, plot, tag, upright
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes

Record = Mapping[str, Any]
Words = Mapping[str, Sequence[Sequence[Any]]]

LABELS = 20  # told, the most changed first
INKS = {"yes": "refused", "not proven": "inconclusive", "no": "passed"}
SAID = {"yes": "moved", "not proven": "not proven", "no": "within"}
KINDS = {"more": "More", "less": "Less", "new": "New"}


def load_words(store: Store, record: Record) -> Words | None:
    """The words that changed, from the store; None where the run kept none, or the store let go of them."""
    digest = (record.get("drift") or {}).get("words")
    try:
        words: Words | None = json.loads(load_bytes(store, digest)) if digest else None
    except NotInStore:
        return None
    return words


def drift_told(record: Record, words: Words | None) -> dict[str, Any] | None:
    """What `drift.html` shows; None where there is nothing to tell."""
    lines, drift = drift_lines(record), record.get("drift") or {}
    if not lines and not drift:
        return None
    measures = drift.get("measures") or []
    scale = _scale(measures)
    return {
        "lines": lines,
        "compared": compared_with(record),
        "measures": [
            {**each, "figure": interval(each, scale), "ink": INKS[outcome(each)], "said": SAID[outcome(each)]}
            for each in measures
        ],
        "axis": _axis(scale) if measures else "",
        "labels": _labels(drift["labels"]) if drift.get("labels") else [],
        "lengths": lengths(drift["lengths"]) if drift.get("lengths") else None,
        "words": [(KINDS[kind], _words(told)) for kind, told in (words or {}).items() if told],
        "kept": bool(drift.get("words")),
    }


def interval(measure: Mapping[str, Any], scale: Scale) -> Markup:
    """A distance less what chance makes of it, with its bounds; what lies wholly right of the threshold has moved."""
    low, high, limit = (scale(max(0.0, measure[key])) for key in ("low", "high", "threshold"))
    at = scale(max(0.0, measure["estimate"] - measure["chance"]))
    said = (
        f"{measure['estimate']:.3f}, from {measure['low']:.3f} to {measure['high']:.3f}; beyond "
        f"{measure['threshold']:g} it has moved; by chance {measure['chance']:.3f}"
    )
    ink = INKS[outcome(measure)]
    marks = [
        tag("rect", x="2%", y=2, width=f"{limit - 2:.2f}%", height=ROW - 4, rx=3, class_="allowed"),
        tag("line", x1="2%", x2="98%", y1=ROW / 2, y2=ROW / 2, class_="grid"),
        upright(limit, 0, ROW, "margin"),
        bar_across(low, high, ROW / 2, ink),
        dot(at, ROW / 2, ink, said, 5.5),
    ]
    return drawing(ROW, *marks, said=said)


def lengths(histogram: Mapping[str, Sequence[float]]) -> Markup:
    """The texts' lengths before and now, side by side; the last pair of bars has all longer ones."""
    height = 190.0
    edges, before, after = (histogram[key] for key in ("edges", "before", "after"))
    x = Scale(0, edges[-1], LEFT, RIGHT)
    y = down([0.0, *(100 * share for share in (*before, *after))], height, spare=0.0)
    marks = []
    for start, end, old, new in zip(edges, edges[1:], before, after, strict=False):
        wide = (x(end) - x(start)) * 0.4
        for place, value, ink, when in ((0.1, old, "m-head_only", "before"), (0.5, new, "m-prompt", "now")):
            left, top = x(start) + place * (x(end) - x(start)), y(100 * value)
            said = f"{start:,.0f} to {end:,.0f} characters: {100 * value:.1f} % {when}"
            marks.append(
                tag("rect", tag("title", said), x=f"{left:.2f}%", y=top, width=f"{wide:.2f}%",
                    height=round(y(0) - top, 2), class_=f"fill {ink}")
            )  # fmt: skip
    return plot(x, y, height, marks, plain, plain, "Share of the texts in % over their length in characters")


def _labels(shares: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row for each label, the most changed first: its share before and now."""
    changed = sorted(shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:LABELS]
    scale = Scale(0, 1.05 * max(max(pair) for _, pair in changed), 2, 98)
    rows = []
    for label, (old, new) in changed:
        left, right = sorted((scale(old), scale(new)))
        marks = [
            tag("line", x1="2%", x2="98%", y1=ROW / 2, y2=ROW / 2, class_="grid"),
            tag("line", x1=f"{left}%", x2=f"{right}%", y1=ROW / 2, y2=ROW / 2, class_="bar m-prompt"),
            dot(scale(old), ROW / 2, "m-head_only", f"{100 * old:.1f} % before", 4.5),
            dot(scale(new), ROW / 2, "m-prompt", f"{100 * new:.1f} % now", 5.5),
        ]
        said = f"{100 * old:.1f} % before, {100 * new:.1f} % now"
        rows.append({"name": label, "old": old, "new": new, "figure": drawing(ROW, *marks, said=said)})
    return rows


def _words(told: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return [{"word": word, "old": f"{1000 * old:.2f}", "new": f"{1000 * new:.2f}"} for word, old, new in told]


def _scale(measures: Sequence[Mapping[str, Any]]) -> Scale:
    """One scale for every distance; thresholds that nothing can exceed do not stretch it."""
    seen = [each["high"] for each in measures] + [each["threshold"] for each in measures if each["threshold"] < 1]
    return Scale(0, 1.06 * max([*seen, 0.05]), 2, 98)


def _axis(scale: Scale) -> Markup:
    marks = [tag("text", plain(value), x=f"{scale(value)}%", y=14, class_="tick middle") for value in scale.ticks()]
    return drawing(18, *marks, said="Distance")
