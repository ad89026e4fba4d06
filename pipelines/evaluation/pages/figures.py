"""The figures of a run's page, each from the run's record or its evidence. Nothing is smoothed, nothing left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.evaluation.pages import words
from pipelines.evaluation.pages.evidence import Slice
from pipelines.evaluation.pages.svg import (
    LEFT,
    RIGHT,
    Scale,
    across,
    bar_across,
    bar_down,
    dot,
    down,
    drawing,
    line,
    plot,
    tag,
    upright,
)

Record = Mapping[str, Any]
Gate = Mapping[str, Any]

ROW = 34.0  # pixels of a figure that is one row
HEIGHT = 230.0  # pixels of a plot


def plain(value: float) -> str:
    """A tick as it is."""
    return f"{value:g}"


def share(value: float) -> str:
    """A tick in percent."""
    return f"{value:g}\N{NO-BREAK SPACE}%"


def comparison_scale(gates: Sequence[Gate]) -> Scale | None:
    """One scale, in points of accuracy, for all gates that compared something; it always shows zero."""
    drawn = [gate for gate in gates if _has_interval(gate)]
    if not drawn:
        return None
    values = [gate[key] for gate in drawn for key in ("low", "high", "threshold")]
    return Scale(*_wider(min(0.0, *values), max(0.0, *values)), 2, 98)


def gate_figure(gate: Gate, scale: Scale | None) -> Markup | None:
    """A gate as one row: an interval against the recipe's margin, or an amount against its limit; None without both."""
    if scale and _has_interval(gate):
        return _interval(gate, scale)
    if gate.get("estimate") is None or not gate.get("threshold"):
        return None
    return _amount(gate)


def comparison_axis(scale: Scale) -> Markup:
    """The values below the comparisons' rows."""
    marks = [tag("line", x1="2%", x2="98%", y1=1, y2=1, class_="axis")]
    for value in scale.ticks():
        at = f"{scale(value)}%"
        marks.append(tag("line", x1=at, x2=at, y1=1, y2=5, class_="axis"))
        marks.append(tag("text", f"{value:+g}" if value else "0", x=at, y=18, class_="tick middle"))
    return drawing(22, *marks, said="Points, the prompt minus the other")


def accuracy_against(scores: Mapping[str, Record], what: str, unit: str, measure: str = "Accuracy") -> Markup | None:
    """Every method's accuracy, or another `measure`, with its 95 % interval over what it cost.

    `what` is `trainable_params` or `train_seconds`. What trains nothing stands at the left edge, under `0`; the
    champion, whose cost this run does not know, is a line.
    """
    placed = {name: each for name, each in scores.items() if name != "champion"}
    if not placed:
        return None
    cost = {name: each.get(what) or 0 for name, each in placed.items()}
    least = min((value for value in cost.values() if value), default=1)
    nothing = 10.0 ** (math.floor(math.log10(least)) - 1)  # where a logarithmic axis shows 0
    x = across([value or nothing for value in cost.values()], log=True)
    champion = scores.get("champion")
    everyone = [*placed.values(), *([champion] if champion else [])]
    y = down([100 * bound for each in everyone for bound in _bounds(each)], HEIGHT)
    marks = []
    if champion:
        at = y(100 * champion["accuracy"])
        title = tag("title", f"Champion: {words.percent(champion['accuracy'])}")
        marks.append(tag("line", title, x1=f"{x.start}%", x2=f"{x.end}%", y1=at, y2=at, class_="reign champion"))
    taken: list[float] = []
    for name, each in sorted(placed.items(), key=lambda pair: pair[0] == "prompt"):  # the prompt on top
        right = x(cost[name] or nothing)
        while any(abs(right - other) < 2.5 for other in taken):  # equal costs stand side by side
            right += 2.5
        taken.append(right)
        ink = f"m-{name}"
        said = f"{words.method(name)}: {words.percent(each['accuracy'])}, {words.magnitude(cost[name])} {unit}"
        low, high = (y(100 * bound) for bound in _bounds(each))
        marks.append(bar_down(right, low, high, ink))
        marks.append(dot(right, y(100 * each["accuracy"]), ink, said))

    def spelt(value: float) -> str:
        return "0" if value <= nothing else words.magnitude(value)

    return plot(x, y, HEIGHT, marks, spelt, plain, f"{measure} in % over {unit}")


def loss_figure(trained: Record) -> Markup | None:
    """A training's loss, step by step, with the loss on validation after each epoch; None where none was kept."""
    curve, epochs = trained.get("curve") or [], trained.get("epochs") or []
    if not curve:
        return None
    last = max(step for step, _ in curve)
    after = [(last * epoch["epoch"] / len(epochs), epoch["validation_loss"], epoch) for epoch in epochs]
    height = 170.0
    x = Scale(0, last * 1.02, LEFT, RIGHT)
    y = down([0.0, *(loss for _, loss in curve), *(loss for _, loss, _ in after)], height)
    marks = [line(curve, x, y, height, "faint")]
    for step, loss, epoch in after:
        kept = epoch["epoch"] == trained.get("kept_epoch")
        accuracy = words.percent(epoch["validation_accuracy"])
        said = f"Epoch {epoch['epoch']}: validation loss {loss:.3f}, accuracy {accuracy}{', kept' if kept else ''}"
        marks.append(dot(x(step), y(loss), "kept" if kept else "open", said, 4.5))
    return plot(x, y, height, marks, words.magnitude, plain, "Cross-entropy over training steps")


def validation_figure(trained: Mapping[str, Record]) -> Markup | None:
    """Every method's accuracy on validation after each epoch, over how much of its own training was done.

    The larger dot is the epoch that counts.
    """
    curves = {name: each["epochs"] for name, each in trained.items() if each.get("epochs")}
    if not curves:
        return None
    height = 230.0
    x = Scale(0, 102, LEFT, RIGHT)
    y = down([100 * epoch["validation_accuracy"] for epochs in curves.values() for epoch in epochs], height)
    marks = []
    for name, epochs in sorted(curves.items(), key=lambda pair: pair[0] == "prompt"):
        points = [(100 * each["epoch"] / len(epochs), 100 * each["validation_accuracy"]) for each in epochs]
        if len(points) > 1:
            marks.append(line(points, x, y, height, f"m-{name}"))
        for (done, accuracy), epoch in zip(points, epochs, strict=True):
            kept = epoch["epoch"] == trained[name].get("kept_epoch")
            said = f"{words.method(name)}, epoch {epoch['epoch']}: {words.percent(epoch['validation_accuracy'])}"
            marks.append(dot(x(done), y(accuracy), f"m-{name}", said, 5 if kept else 2.5))
    return plot(x, y, height, marks, share, plain, "Accuracy on validation in % over the share of the training done")


def slice_figure(slices: Mapping[str, Slice], scale: Scale) -> Markup:
    """One label's accuracy by every method as dots in a row, the prompt's with its interval."""
    middle = ROW / 2
    marks = [tag("line", x1="2%", x2="98%", y1=middle, y2=middle, class_="grid")]
    if slices["prompt"].n:
        low, high = (scale(100 * bound) for bound in slices["prompt"].interval)
        marks.append(bar_across(low, high, middle, "m-prompt"))
    for name, each in sorted(slices.items(), key=lambda pair: pair[0] == "prompt"):
        if each.accuracy is not None:
            said = f"{words.method(name)}: {each.right:,} of {each.n:,} right"
            size = 5.5 if name == "prompt" else 4.5
            marks.append(dot(scale(100 * each.accuracy), middle, f"m-{name}", said, size))
    return drawing(ROW, *marks, said="Accuracy by method")


def slice_scale(slices: Mapping[str, Mapping[str, Slice]]) -> Scale:
    """One scale, in percent, for every label; up to 100."""
    seen = [
        100 * each.accuracy for methods in slices.values() for each in methods.values() if each.accuracy is not None
    ]
    bounds = [100 * methods["prompt"].interval[0] for methods in slices.values() if methods["prompt"].n]
    return Scale(max(0.0, min([*seen, *bounds, 95.0]) - 2), 100.5, 2, 98)


def slice_axis(scale: Scale) -> Markup:
    """The values below the labels' rows."""
    marks = [tag("text", share(value), x=f"{scale(value)}%", y=14, class_="tick middle") for value in scale.ticks()]
    return drawing(18, *marks, said="Accuracy in %")


def _interval(gate: Gate, scale: Scale) -> Markup:
    """The difference with its bounds; what lies right of the dashed margin passes."""
    low, high, at, margin = (scale(gate[key]) for key in ("low", "high", "estimate", "threshold"))
    ink = gate["verdict"]
    found = f"{gate['estimate']:+.2f} points, from {gate['low']:+.2f} to {gate['high']:+.2f}"
    said = f"{found}; above {gate['threshold']:+g} passes"
    marks = [
        tag("rect", x=f"{margin}%", y=2, width=f"{98 - margin:.2f}%", height=ROW - 4, rx=3, class_="allowed"),
        tag("line", x1="2%", x2="98%", y1=ROW / 2, y2=ROW / 2, class_="grid"),
        upright(scale(0), 2, ROW - 2, "zero"),
        upright(margin, 0, ROW, "margin"),
        bar_across(low, high, ROW / 2, ink),
        dot(at, ROW / 2, ink, said, 5.5),
    ]
    return drawing(ROW, *marks, said=said)


def _amount(gate: Gate) -> Markup:
    """How much of a limit is used, or how far above a floor something is."""
    scale = Scale(0, 1.12 * max(gate["estimate"], gate["threshold"]), 2, 98)
    at, limit = scale(gate["estimate"]), scale(gate["threshold"])
    said = f"{gate['estimate']:,} against {gate['threshold']:,}"
    marks = [
        tag("rect", x="2%", y=11, width="96%", height=12, rx=3, class_="track"),
        tag("rect", tag("title", said), x="2%", y=11, width=f"{max(at - 2, 0.5):.2f}%", height=12, rx=3,
            class_=f"fill {gate['verdict']}"),
        upright(limit, 3, ROW - 3, "margin"),
    ]  # fmt: skip
    return drawing(ROW, *marks, said=said)


def _bounds(scores: Record) -> tuple[float, float]:
    """The interval of an accuracy; the accuracy itself where there is none."""
    low, high = scores.get("low"), scores.get("high")
    accuracy: float = scores["accuracy"]
    return (accuracy if low is None else low), (accuracy if high is None else high)


def _has_interval(gate: Gate) -> bool:
    return gate.get("low") is not None and gate.get("high") is not None and gate.get("threshold") is not None


def _wider(low: float, high: float) -> tuple[float, float]:
    spare = 0.06 * ((high - low) or 1.0)
    return low - spare, high + spare
