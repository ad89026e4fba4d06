"""The page of one run: the verdict first, then what it rests on, down to the digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.bases.pin import PinnedBase
from pipelines.data.splits import SPLITS
from pipelines.evaluation.comparisons import IN_WORDS
from pipelines.evaluation.floor import floor_line
from pipelines.evaluation.lengths import cut_lines
from pipelines.evaluation.measured import headline, in_a_sentence, measured, metric_of
from pipelines.evaluation.pages import figures, words
from pipelines.evaluation.pages.drift import Words, drift_told
from pipelines.evaluation.pages.evidence import Evidence, Slice
from pipelines.evaluation.pages.render import render
from pipelines.evaluation.pages.written import Written
from pipelines.evaluation.power import in_words, low
from pipelines.evaluation.report import METHODS, SWEPT, leaderboard_rows
from pipelines.evaluation.taken_over import baseline_lines, cost_line, start_line
from pipelines.evaluation.texts import METRICS

Record = Mapping[str, Any]

MATRIX = 12  # labels; with more of them the pairs that are confused most often are told in the place of a matrix
CONFUSED = 10
CONTENTS = {
    "gates": "Gates", "quality": "Quality and cost", "learning": "Learning curves", "swept": "Sweep",
    "slices": "Slices", "errors": "Errors", "data": "Data", "drift": "Drift", "stages": "Time", "lineage": "Lineage",
}  # fmt: skip
STAGES = ("pin base", "snapshot", "validate", "tokenize", "drift", "sweep", "train", "score", "judge", "register")


def run_page(
    record: Record,
    evidence: Evidence | Written | None = None,
    base: PinnedBase | None = None,
    changed: Words | None = None,
) -> str:
    """One self-contained page of HTML about a run.

    It loads nothing: style and figures are inside it, there is no script, and its security policy allows no request.

    Args:
        record: of the run, by whatever version it was written; what it lacks is left out.
        evidence: the answers behind its scores, where they are known; see `evidence.gather`.
        base: what is written down of the base, where it is known.
        changed: the words that changed since the champion's data, where they may be shown; see `drift.load_words`.
    """
    # Of texts the recipe's metric stands where pages have an accuracy; `measure` is what it is called.
    given = {name: each for name in METHODS if (each := (record.get("scores") or {}).get(name))}
    scores = {name: {**each, "accuracy": headline(each)} for name, each in given.items()}
    written = evidence if isinstance(evidence, Written) else None
    evidence = None if isinstance(evidence, Written) else evidence
    measure = measured(record)
    trained = record.get("trained") or {}
    gates = record.get("gates") or []
    data = record.get("data") or {}
    shown = {
        "gates": _gates(gates),
        "quality": scores,
        "learning": [
            {"name": words.method(name), "figure": figure}
            for name in METHODS
            if name in trained and (figure := figures.loss_figure(trained[name]))
        ],
        "swept": leaderboard_rows(record.get("leaderboard") or []),
        "slices": list(_slices(evidence, record)),
        "errors": scores,
        "data": data,
        "drift": drift_told(record, changed),
        "stages": _bars(_in_order(record.get("seconds") or {}, STAGES), "seconds"),
        "lineage": list(_lineage(record, base)),
    }
    scale = figures.comparison_scale(gates)
    return render(
        "run.html",
        record={"description": None, "at": None, "not_promoted": None, **record},
        swept_columns=SWEPT,
        standing=_standing(record),
        decisive=[gate["reason"] for gate in gates if gate["verdict"] == record["verdict"] and gate.get("reason")],
        tiles=list(_tiles(scores, measure, in_a_sentence(record))),
        measure=measure,
        measure_within=in_a_sentence(record),
        metrics=METRICS if metric_of(record) else {},
        written=written,
        contents=[(key, title) for key, title in CONTENTS.items() if shown[key]],
        confidence=_confidence(record),
        axis=figures.comparison_axis(scale) if scale else "",
        origins=[words.sentence(line) for line in (start_line(record), *baseline_lines(record)) if line],
        floor=floor_line(record),
        power=[in_words(each) for each in low(record.get("power") or [])],
        methods=list(_methods(scores, trained)),
        reused=any(each.get("reused") for each in trained.values()),
        by_params=figures.accuracy_against(scores, "trainable_params", "trained parameters", measure),
        by_seconds=figures.accuracy_against(scores, "train_seconds", "seconds of training", measure),
        validation=figures.validation_figure(trained),
        texts=evidence is not None and all(each.text is not None for each in evidence.mistakes),
        groups=_groups(evidence),
        evidence=evidence,
        flow=_bars(_flow(data), "count"),
        cut=cut_lines(record),
        sides=_in_order(data.get("labels") or {}, SPLITS),
        reasons=_bars(data.get("reasons") or {}, "count"),
        spent=_spent(trained),
        cost=cost_line(record),
        **_evidence(evidence),
        **{key: value for key, value in shown.items() if key not in ("quality", "errors")},
    )


def _tiles(scores: Mapping[str, Record], measure: str, within: str) -> Iterator[dict[str, str]]:
    """The few numbers that a person asks for first."""
    prompt = scores.get("prompt")
    if prompt is None:
        return
    yield {
        "name": measure,
        "figure": words.percent(prompt["accuracy"]),
        "note": f"95\N{NO-BREAK SPACE}%: {_between(prompt)}",
    }
    for name in ("lora", "adapters", "full", "champion"):
        if name in scores:
            ahead = 100 * (prompt["accuracy"] - scores[name]["accuracy"])
            yield {"name": f"Against {IN_WORDS[name]}", "figure": f"{ahead:+.1f}", "note": f"points of {within}"}
    parameters, whole = prompt.get("trainable_params"), (scores.get("full") or {}).get("trainable_params")
    share = f"{100 * parameters / whole:.2g} % of full fine-tuning's" if parameters and whole else "head included"
    yield {"name": "Trained parameters", "figure": words.magnitude(parameters or 0), "note": share}
    yield {"name": "Artifact", "figure": words.size(prompt.get("artifact_bytes")), "note": "all that serving pulls"}


def _gates(gates: Sequence[Record]) -> list[dict[str, Any]]:
    """Every gate with its figure; comparisons first, so that one axis stands below them."""
    scale = figures.comparison_scale(gates)
    drawn = [gate for gate in gates if gate.get("low") is not None]
    ordered = [*drawn, *(gate for gate in gates if gate not in drawn)]
    return [
        {
            "p_value": None,
            **gate,
            "title": _title(gate["name"]),
            "sides": _sides(gate["name"]),
            "figure": figures.gate_figure(gate, scale),
            "last_comparison": bool(drawn) and gate is drawn[-1],
        }
        for gate in ordered
    ]


def _title(name: str) -> str:
    """A gate's name with its opponent as people call it."""
    kind, to, other = name.partition(" to ")
    return words.sentence(f"{kind}{to}{IN_WORDS.get(other, other)}").rstrip(".")


def _sides(name: str) -> tuple[str, str]:
    """What a comparison compares."""
    with_itself = name.startswith("robust") and " beside " not in name
    return (
        ("the answer to the disturbed text", "that to the text as it is")
        if with_itself
        else ("the prompt", "the other")
    )


def _between(scores: Record) -> str:
    """The 95 % interval of an accuracy, in words."""
    low, high = scores.get("low"), scores.get("high")
    return words.NOTHING if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _methods(scores: Mapping[str, Record], trained: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """One row per method; the champion was not trained by this run, so its cost is not known here."""
    known = ("low", "high", "macro_f1", "ece", "n", "trainable_params", "artifact_bytes", "train_seconds")
    for name, each in scores.items():
        row = {**dict.fromkeys(known), **each, "key": name, "name": words.method(name)}
        if name == "champion":  # records of before say 0
            row |= dict.fromkeys(("trainable_params", "artifact_bytes", "train_seconds"))
        row["interval"] = _between(each)
        yield row | {"reused": (trained.get(name) or {}).get("reused", False)}


def _evidence(evidence: Evidence | None) -> dict[str, Any]:
    """The confusion matrix, and the pairs that are confused most often."""
    if evidence is None:
        return {"confusion": [], "confused": []}
    return {
        "confusion": _matrix(evidence) if len(evidence.labels) <= MATRIX else [],
        "confused": _confused(evidence),
    }


def _sliced(slices: Mapping[str, Mapping[str, Slice]]) -> dict[str, Any]:
    """`{rows, axis}`: a figure for every label, or every value of a column, the prompt's weakest first."""
    scale = figures.slice_scale(slices)
    weakest_first = sorted(slices, key=lambda name: slices[name]["prompt"].accuracy or 0.0)
    rows = [
        {"name": name, "prompt": slices[name]["prompt"], "figure": figures.slice_figure(slices[name], scale)}
        for name in weakest_first
    ]
    return {"rows": rows, "axis": figures.slice_axis(scale)}


def _slices(evidence: Evidence | None, record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(column, its values as figures)`: the label, where the answers are known, and the columns of `data.slices`."""
    if evidence:
        yield "label", _sliced(evidence.slices)
    for column, values in (record.get("slices") or {}).items():
        told = {
            value: {name: Slice(**methods[name]) for name in METHODS if name in methods}
            for value, methods in values.items()
        }
        yield column, _sliced(told)


def _groups(evidence: Evidence | None) -> list[dict[str, Any]]:
    """The worst errors: those that another method does not make, and those that all of them make."""
    if evidence is None:
        return []
    own = [each for each in evidence.mistakes if each.right or not each.wrong]
    shared = [each for each in evidence.mistakes if each not in own]
    told = [
        ("Its worst errors", "The ones it was surest of, where another method is right.", own),
        ("Where every method is wrong", "The surest of them. Look at the labels first.", shared),
    ]
    return [{"title": title, "about": about, "mistakes": mistakes} for title, about, mistakes in told if mistakes]


def _matrix(evidence: Evidence) -> list[dict[str, Any]]:
    """The prompt's confusion matrix, each cell with how dark it is: by its share of its row."""
    rows = []
    for row, (label, counts) in enumerate(zip(evidence.labels, evidence.confusion["prompt"].tolist(), strict=True)):
        cells = [
            {
                "count": count or "",
                "shade": round((count / max(sum(counts), 1)) ** (1 if column == row else 0.5), 3),  # few errors show
                "kind": "hit" if column == row else "miss" if count else "none",
            }
            for column, count in enumerate(counts)
        ]
        rows.append({"label": label, "cells": cells})
    return rows


def _confused(evidence: Evidence) -> list[dict[str, Any]]:
    """`{label, answered, count, width}` of the pairs that the prompt confuses most often."""
    table = evidence.confusion["prompt"].tolist()
    pairs = [
        {"label": label, "answered": answered, "count": table[row][column]}
        for row, label in enumerate(evidence.labels)
        for column, answered in enumerate(evidence.labels)
        if row != column and table[row][column]
    ]
    pairs = sorted(pairs, key=lambda pair: -pair["count"])[:CONFUSED]
    return [{**pair, "width": round(100 * pair["count"] / pairs[0]["count"], 1)} for pair in pairs]


def _flow(data: Record) -> dict[str, int]:
    """Where the rows went."""
    rows = data.get("rows") or {}
    if not rows:
        return {}
    splits = _in_order(data.get("splits") or {}, SPLITS)
    sides = {f"used for {'training' if side == 'train' else side}": n for side, n in splits.items()}
    aside = {"in quarantine": rows["quarantined"], "dropped as leaks": rows["leaks_dropped"]}
    return {"rows arrived": rows["read"], **aside, **sides}


def _in_order(values: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The same values, those that `order` names first and in its order: a record's JSON has sorted keys."""
    return {key: values[key] for key in (*order, *values) if key in values}


def _bars(values: Mapping[str, float], unit: str) -> list[dict[str, Any]]:
    """`{name, width, UNIT}`: each value beside a bar, the longest 100 % wide."""
    most = max(values.values(), default=0) or 1
    return [{"name": name, "width": round(100 * value / most, 1), unit: value} for name, value in values.items()]


def _spent(trained: Mapping[str, Record]) -> str:
    """What the trainings took, and what was not paid again."""
    if not trained:
        return ""
    new = sum(each["seconds"] for each in trained.values() if not each.get("reused"))
    old = sum(each["seconds"] for each in trained.values() if each.get("reused"))
    kept = f"; {words.duration(old)} of training came from the store and was not paid again"
    return f"Trainings of this run: {words.duration(new)}{kept if old else ''}."


def _standing(record: Record) -> str:
    """What the version was when the run ended: champion, challenger, or nothing."""
    version = record.get("version")
    return " and ".join(a for a, v in (record.get("aliases") or {}).items() if version is not None and v == version)


def _confidence(record: Record) -> str:
    level = ((record.get("settings") or {}).get("gates") or {}).get("confidence")
    return f"{100 * level:g}\N{NO-BREAK SPACE}%" if level else ""


def _lineage(record: Record, base: PinnedBase | None) -> Iterator[tuple[str, str | None, str | None]]:
    """`(what, digest, note)`, from what serves back to what it was made of."""
    settings, data = record.get("settings") or {}, record.get("data") or {}
    if record.get("prompt_digest"):
        board = record.get("leaderboard") or []
        found = [row["change"] for row in board if row["chosen"] and row["method"] == "prompt"]
        made = {"seed": settings["seed"], **settings["prompt"], **(found[0] if found else {})}
        yield "Prompt", record["prompt_digest"], f"{made['method']}, {made['tokens']} tokens, seed {made['seed']}"
    if record.get("artifact"):
        yield "Artifact, with proof and provenance", record["artifact"], "a tree in the store"
    yield "Recipe", record.get("recipe_digest"), None
    for side, digest in _in_order(data.get("split_digests") or {}, SPLITS).items():
        yield f"{side.capitalize()} examples", digest, None
    if data.get("tree"):
        yield (
            "Data, as checked",
            data["tree"],
            "the data report; its Data Docs are kept in MLflow's run, under data_docs/",
        )
    yield "Data, as they arrived", record.get("data_digest"), (settings.get("data") or {}).get("path")
    name = (settings.get("base") or {}).get("name")
    if base:
        name = f"{base.name}, {words.size(base.size_bytes)} in {len(base.files)} files from {base.source}"
    yield "Base", record.get("base_digest"), name
