"""One run, told: a table, a page of Markdown and a picture, all from the run's record.

The record is plain JSON; a run that ended early (its data were refused) has no scores and no gates, and is told all the
same. Accuracies in it, and metrics of texts, are fractions; gates are in points of them or in a budget's own units.
"""

from __future__ import annotations

import html
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.digests import short
from pipelines.evaluation.drift import DRIFTED, compared_with, drift_lines, drift_rows, moved_lines
from pipelines.evaluation.floor import floor_line
from pipelines.evaluation.lengths import cut_lines
from pipelines.evaluation.measured import headline, in_a_sentence, measured, metric_of
from pipelines.evaluation.power import in_words, low
from pipelines.evaluation.taken_over import baseline_lines, cost_line, start_line
from pipelines.evaluation.texts import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]

COMPARED = ("Gate", "Points", "Only the prompt right", "Only the other right", "McNemar's exact p")
COLUMNS = ("Method", "Accuracy %", "Low", "High", "Trained parameters", "Artifact bytes", "Seconds")
SWEPT = ("Method", "Settings", "Validation accuracy %", "Loss", "Trained parameters", "Seconds", "Chosen")
METHODS = {
    "prompt": "Soft prompt",
    "champion": "Champion",
    "lora": "LoRA",
    "adapters": "Adapters",
    "full": "Full fine-tuning",
    "head_only": "Head only",
    "zero_shot": "Zero-shot",
}
COLOURS = {"passed": "#1a7f4b", "inconclusive": "#b7791f", "refused": "#c0392b"}
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"


def columns(record: Record) -> tuple[str, ...]:
    """What stands above the rows of `summary_rows`."""
    return (COLUMNS[0], f"{measured(record)} %", *COLUMNS[2:])


def summary_rows(record: Record) -> list[list[str]]:
    """One row per method that was scored, as text under `columns`; the prompt first, `-` for what is not known."""
    rows = []
    for key, name in METHODS.items():
        if scores := _scores(record).get(key):
            percents = [_percent(each) for each in (headline(scores), scores.get("low"), scores.get("high"))]
            counts = [_count(scores.get(column)) for column in ("trainable_params", "artifact_bytes")]
            rows.append([name, *percents, *counts, _seconds(scores.get("train_seconds"))])
    return rows


def leaderboard_rows(leaderboard: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per combination of a sweep, as text under `SWEPT`, in the leaderboard's order."""
    rows = []
    for row in leaderboard:
        settings = ", ".join(f"{key} {value}" for key, value in row["change"].items())
        if "diverged_at" in row:
            measured = [f"diverged at step {row['diverged_at']}", "-", "-", "-"]
        else:
            measured = [_percent(row["validation_accuracy"]), f"{row['validation_loss']:.3f}",
                        _count(row["trainable_params"]), _seconds(row["seconds"])]  # fmt: skip
        rows.append([METHODS[row["method"]], settings, *measured, "yes" if row["chosen"] else ""])
    return rows


def gate_rows(record: Record) -> list[list[str]]:
    """One row per gate, as text: its name, its verdict, and why."""
    return [[gate["name"], gate["verdict"], gate.get("reason") or "-"] for gate in record.get("gates") or []]


def comparison_rows(record: Record) -> list[list[str]]:
    """One row per comparison that was made, as text under `COMPARED`."""
    return [
        [gate["name"], f"{gate['estimate']:+.1f}", _count(gate["won"]), _count(gate["lost"]), p_value(gate["p_value"])]
        for gate in record.get("gates") or []
        if gate.get("p_value") is not None
    ]


def power_lines(record: Record) -> list[str]:
    """One sentence per gate that the test set is small for, unless the run's reason says it already."""
    lines = [in_words(each) for each in low(record.get("power") or [])]
    return [line for line in lines if line not in record["reason"]]


def markdown(record: Record) -> str:
    """The run as a page of GitHub-flavoured Markdown; what came from the data or a person is escaped."""
    version = f", version {record['version']}" if record.get("version") is not None else ""
    lines = [
        f"# {_safe(record['recipe'])}{version}: {_safe(record['verdict'])}",
        "",
        f"{_safe(_sentence(record['reason']))}",
        "",
    ]
    if record.get("unchanged"):
        lines += ["Nothing has changed since an earlier run; this is what it found.", ""]
    if rows := summary_rows(record):
        head = columns(record)
        lines += [f"## {measured(record)} on the test split", "", *_table(head, rows, right=len(head) - 1), ""]
        lines += [_safe(_sentence(floor)), ""] if (floor := floor_line(record)) else []
    else:
        lines += ["Nothing was scored.", ""]
    if rows := leaderboard_rows(record.get("leaderboard") or []):
        lines += ["## Sweep: chosen by the validation split", "", *_table(SWEPT, rows), ""]
    if rows := gate_rows(record):
        lines += ["## Gates", "", *_table(("Gate", "Verdict", "Why"), rows), ""]
    if began := start_line(record):
        lines += [_safe(began), ""]
    if told := baseline_lines(record):
        lines += ["## Where the baselines come from", "", *(f"- {_safe(line)}" for line in told), ""]
    if rows := comparison_rows(record):
        lines += ["## Comparisons, example by example", "", *_table(COMPARED, rows, right=len(COMPARED) - 1), ""]
    if told := power_lines(record):
        lines += ["## Low power", "", *(f"- {_safe(line)}" for line in told), ""]
    lines += _metrics_section(record)
    scored = [(name, _scores(record).get(key)) for key, name in METHODS.items()]
    if rows := [[name, _percent(s["ece"])] for name, s in scored if s and s.get("ece") is not None]:
        lines += ["## Calibration", "", *_table(("Method", "Expected calibration error, points"), rows, right=1), ""]
    lines += _data_section(record.get("data") or {}, cut_lines(record))
    lines += _drift_section(record)
    if seconds := record.get("seconds"):
        rows = [[stage, _seconds(value)] for stage, value in seconds.items()]
        lines += ["## Where the time went", "", *_table(("Stage", "Seconds"), rows, right=1), ""]
    if cost := cost_line(record):
        lines += [cost, ""]
    names = {"Run": record.get("run_key"), "Prompt": record.get("prompt_digest")}
    names |= {"Base": record.get("base_digest"), "Data": record.get("data_digest")}
    lines += ["## What exactly", ""]
    lines += [f"- {name}: `{short(str(digest))}`" if digest else f"- {name}: none" for name, digest in names.items()]
    return "\n".join(lines) + "\n"


def _metrics_section(record: Record) -> list[str]:
    """Every metric of every method, where texts were written; one of them is the recipe's, the others are told."""
    if metric_of(record) is None:
        return []
    scored = {name: each for key, name in METHODS.items() if (each := _scores(record).get(key))}
    rows = [[name, *(_percent(each.get(metric)) for metric in METRICS)] for name, each in scored.items()]
    told = [f"BLEU is sacrebleu's, `{each['signature']}`." for each in scored.values()][:1]
    head = ("Method", *(f"{name} %" for name in METRICS.values()))
    return ["## All metrics", "", *_table(head, rows, right=len(METRICS)), "", *told, ""] if rows else []


def plot(record: Record) -> bytes:
    """A PNG, 1200 by 480 pixels: accuracy against trained parameters on the left, the gates' intervals on the right."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    figure = Figure(figsize=(12, 4.8), dpi=100, layout=layout, facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    for axes in (left, right):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(MUTED)
        axes.tick_params(colors=INK, length=0, labelsize=9)
        axes.set_axisbelow(True)
    _draw_accuracy(left, record)
    _draw_gates(right, record)
    colour = COLOURS.get(record["verdict"], INK)
    figure.suptitle(f"{record['recipe']}: {record['verdict']}", x=0.015, ha="left", color=colour, weight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw_accuracy(axes: Axes, record: Record) -> None:
    """Every method's accuracy with its interval, over how much it trained; a method that trains nothing stands at 0."""
    scored = [(key, s) for key in METHODS if (s := _scores(record).get(key)) and headline(s) is not None]
    axes.set_title(f"{measured(record)} on the test split, %", loc="left", fontsize=10, color=INK)
    if not scored:
        _say(axes, "nothing was scored")
        return
    scored.sort(key=lambda pair: pair[1].get("trainable_params") or 0)
    trained = [s.get("trainable_params") or 0 for _, s in scored]
    least, most = min(filter(None, trained), default=1), max(*trained, 1)
    nothing = least / 10  # where a logarithmic axis shows 0
    powers = range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)
    ticks = {10.0**power: _magnitude(power) for power in powers} | ({nothing: "0"} if 0 in trained else {})
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlim((nothing if 0 in trained else least) / 4, most * 4)
    axes.margins(y=0.2)
    axes.grid(axis="y", color=GRID)
    axes.set_xlabel("trained parameters", color=MUTED, fontsize=9)
    for number, ((key, s), count) in enumerate(zip(scored, trained, strict=True)):
        # Names above and below in turn, and equal counts side by side: neighbours must not hide each other.
        x = (count or nothing) * 1.3 ** trained[:number].count(count)
        colour = COLOURS.get(record["verdict"], INK) if key == "prompt" else None
        _draw_method(axes, x, METHODS[key], s, number % 2 == 0, colour)


def _draw_method(axes: Axes, x: float, name: str, scores: Record, above: bool, colour: str | None) -> None:
    """One method's accuracy with its interval and its name; bold where it has a `colour`."""
    figure = headline(scores) or 0.0
    y, low, high = (
        100 * (figure if each is None else each) for each in (figure, scores.get("low"), scores.get("high"))
    )
    style: dict[str, Any] = {"color": colour or MUTED, "fontsize": 9, "weight": "bold" if colour else "normal"}
    axes.errorbar(
        x, y, [[y - low], [high - y]], fmt="o", color=colour or MUTED, markersize=7, capsize=4, elinewidth=1.6
    )
    place, offset, side = (high, 5, "bottom") if above else (low, -5, "top")
    axes.annotate(
        f"{name}\n{y:.1f}", (x, place), (0, offset), textcoords="offset points", ha="center", va=side, **style
    )


def _draw_gates(axes: Axes, record: Record) -> None:
    """Every interval against its threshold; guards and budgets, which have no interval, are told below."""
    gates = record.get("gates") or []
    drawn = [gate for gate in gates if gate.get("low") is not None and gate.get("high") is not None]
    title = f"Soft prompt minus the other, points of {in_a_sentence(record)}"
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    if drawn:
        axes.grid(axis="x", color=GRID)
        axes.axvline(0, color=MUTED, linewidth=1)
        names = [gate["name"].partition(" to ") for gate in drawn]
        ahead = {"superior": "ahead of ", "robust": "robust to "}
        axes.set_yticks(range(len(drawn)), [ahead.get(kind, "") + METHODS.get(to, to) for kind, _, to in names])
        axes.set_ylim(len(drawn) - 0.5, -0.5)
    else:
        _say(axes, "no gate compared anything")
    for row, gate in enumerate(drawn):
        y, low, high = gate["estimate"], gate["low"], gate["high"]
        ink = COLOURS.get(gate["verdict"], INK)
        axes.errorbar(y, row, xerr=[[y - low], [high - y]], fmt="o", color=ink, markersize=7, capsize=4, elinewidth=1.6)
        axes.vlines(gate["threshold"], row - 0.32, row + 0.32, color=INK, linestyle=(0, (3, 2)), linewidth=1.6)
        axes.annotate(gate["verdict"], (y, row), (0, 9), textcoords="offset points", ha="center", color=ink, fontsize=9)
    told = [textwrap.fill(f"{gate['verdict']}: {gate['reason']}", 70) for gate in gates if gate not in drawn]
    note = ["dashed: the recipe's margin"] * bool(drawn) + told
    axes.set_xlabel("\n".join(note), color=MUTED, fontsize=9, loc="left")


def _say(axes: Axes, text: str) -> None:
    """An empty panel that says why."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _data_section(data: Record, cut: Sequence[str]) -> list[str]:
    """How many rows came, where they went, what was wrong with them, and what of them the base does not read."""
    if not data:
        return []
    lines = ["## Data", ""]
    if rows := data.get("rows"):
        splits = ", ".join(f"{_count(number)} {_safe(name)}" for name, number in (data.get("splits") or {}).items())
        aside = f"{_count(rows['quarantined'])} in quarantine, {_count(rows['leaks_dropped'])} dropped as leaks"
        lines += [f"{_count(rows['read'])} rows arrived: {aside}; used: {splits}.", ""]
    if reasons := data.get("reasons"):
        table = [[reason, _count(number)] for reason, number in reasons.items()]
        lines += [*_table(("Set aside because", "Rows"), table, right=1), ""]
    if told := [*(data.get("problems") or ()), *cut]:
        lines += [*(f"- {_safe(line)}" for line in told), ""]
    return lines


def _drift_section(record: Record) -> list[str]:
    """How far the data have moved from the champion's, and whether it has learnt from test examples."""
    rows, told = drift_rows(record), [*moved_lines(record), *drift_lines(record)]
    lines = [f"{_sentence(_safe(compared_with(record)))}", "", *_table(DRIFTED, rows), ""] if rows else []
    lines += [*(f"- {_safe(_sentence(line))}" for line in told), ""] if told else []
    return ["## Drift", "", *lines] if lines else []


def _scores(record: Record) -> Mapping[str, Mapping[str, Any]]:
    return record.get("scores") or {}


def _table(head: tuple[str, ...], rows: list[list[str]], right: int = 0) -> list[str]:
    """A Markdown table whose last `right` columns are aligned to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *([_safe(cell) for cell in row] for row in rows))]


def _safe(text: object) -> str:
    """Text that opens no tag, table cell, link or line of its own."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|" else sign for sign in escaped)


def _sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _magnitude(power: int) -> str:
    """A power of ten as people say it: `100`, `10 k`, `1 M`."""
    return f"{10 ** (power % 3)} {['', 'k', 'M', 'G', 'T'][power // 3]}".strip() if power < 15 else f"1e{power}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:,.1f}"
