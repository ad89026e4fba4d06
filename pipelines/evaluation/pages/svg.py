"""Marks on a page: inline SVG that stretches with its column while its text and its strokes keep their size.

Places across are percentages of the width, places down are pixels; only lines of many points live in a box that is
stretched. Colours are classes of `style.css`, so a figure follows the reader's light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LEFT, RIGHT = 13.0, 97.0  # where a plot begins and ends, in percent of the width
TOP, BOTTOM = 12.0, 34.0  # pixels above a plot and below it, where its axis is written

Mark = Markup
Spell = Callable[[float], str]


def tag(element: str, *inside: object, **attributes: object) -> Markup:
    """An element with what is inside it, all of it escaped unless it is markup; `stroke_width` is `stroke-width`."""
    said = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Markup(f"<{element}{said}>{''.join(escape(part) for part in inside)}</{element}>")


@dataclass(frozen=True)
class Scale:
    """Where a value stands: `low` at `start`, `high` at `end`, in a straight or a logarithmic line."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (at - low) / (high - low), 2)

    def ticks(self) -> list[float]:
        """At most six round values within it; where it is logarithmic powers of ten, their halves and fifths if few."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            parts = (1, 2, 5) if len(powers) < 3 else (1,)
            ticks = [part * 10.0**power for power in powers for part in parts]
            inside = [tick for tick in ticks if self.low <= tick <= self.high]
            return inside[:: math.ceil(len(inside) / 6) or 1]
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]


def across(values: Iterable[float], log: bool = False, spare: float = 0.06) -> Scale:
    """A scale over the width that holds all the values with something to spare; they may be equal."""
    return _around(values, LEFT, RIGHT, log, spare)


def down(values: Iterable[float], height: float, spare: float = 0.08) -> Scale:
    """A scale over a plot's height that holds all the values, the largest on top."""
    return _around(values, height - BOTTOM, TOP, False, spare)


def _around(values: Iterable[float], start: float, end: float, log: bool, spare: float) -> Scale:
    seen = sorted(values)
    low, high = seen[0], seen[-1]
    if log:
        wider = max(high / low, 10) ** spare
        return Scale(low / wider, high * wider, start, end, log=True)
    wider = spare * ((high - low) or abs(high) or 1.0)
    return Scale(low - wider, high + wider, start, end)


def plot(x: Scale, y: Scale, height: float, marks: Sequence[Mark], spell_x: Spell, spell_y: Spell, said: str) -> Markup:
    """A plot: grid lines with their values at the left, the axis below, and the marks; `said` is for who cannot see."""
    floor = height - BOTTOM
    rows = [
        tag("line", x1=f"{LEFT}%", x2=f"{RIGHT}%", y1=y(value), y2=y(value), class_="grid")
        + tag("text", spell_y(value), x=f"{LEFT}%", y=y(value), dx=-6, dy=4, class_="tick end")
        for value in y.ticks()
    ]
    columns = [
        tag("line", x1=f"{x(value)}%", x2=f"{x(value)}%", y1=floor, y2=floor + 4, class_="axis")
        + tag("text", spell_x(value), x=f"{x(value)}%", y=floor + 18, class_="tick middle")
        for value in x.ticks()
    ]
    axis = tag("line", x1=f"{LEFT}%", x2=f"{RIGHT}%", y1=floor, y2=floor, class_="axis")
    return drawing(height, *rows, *columns, axis, *marks, said=said)


def drawing(height: float, *marks: Mark, said: str) -> Markup:
    """An image as wide as its column and `height` pixels high."""
    return tag("svg", tag("title", said), *marks, class_="drawing", role="img", height=height, width="100%")


def line(points: Sequence[tuple[float, float]], x: Scale, y: Scale, height: float, ink: str) -> Mark:
    """A line through points of data: drawn in a box that is stretched over the plot, its stroke is not."""
    inner = height - TOP - BOTTOM
    placed = " ".join(
        f"{round((x(a) - LEFT) / (RIGHT - LEFT) * 1000, 1)},{round((y(b) - TOP) / inner * 100, 2)}" for a, b in points
    )
    drawn = tag("polyline", points=placed, class_=f"curve {ink}", vector_effect="non-scaling-stroke")
    box = {"x": f"{LEFT}%", "y": TOP, "width": f"{RIGHT - LEFT}%", "height": inner}
    return tag("svg", drawn, **box, viewBox="0 0 1000 100", preserveAspectRatio="none", overflow="visible")


def dot(x: float, y: float, ink: str, said: str, size: float = 5) -> Mark:
    """A point at x % and y px that says what it is when the pointer rests on it."""
    return tag("circle", tag("title", said), cx=f"{x}%", cy=y, r=size, class_=f"dot {ink}")


def bar_across(low: float, high: float, y: float, ink: str) -> Mark:
    """An interval from x = low % to high %, with a stop at either end."""
    ends = [tag("line", x1=f"{at}%", x2=f"{at}%", y1=y - 5, y2=y + 5, class_=f"bar {ink}") for at in (low, high)]
    return Markup().join([tag("line", x1=f"{low}%", x2=f"{high}%", y1=y, y2=y, class_=f"bar {ink}"), *ends])


def bar_down(x: float, low: float, high: float, ink: str) -> Mark:
    """An interval from y = low px to high px."""
    return tag("line", x1=f"{x}%", x2=f"{x}%", y1=low, y2=high, class_=f"bar {ink}")


def upright(x: float, top: float, bottom: float, kind: str) -> Mark:
    """A line from top to bottom: where zero is, or a threshold."""
    return tag("line", x1=f"{x}%", x2=f"{x}%", y1=top, y2=bottom, class_=kind)
