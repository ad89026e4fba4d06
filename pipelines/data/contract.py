"""What a row must be. A row that is not goes to quarantine with every reason; no row is dropped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import pandas as pd

from pipelines.data.personal import KINDS, masked, personal_data
from pipelines.data.reading import Rows
from pipelines.data.splits import ALIASES, SPLITS, written_columns
from pipelines.data.wording import check_languages, damaged, other_language
from pipelines.errors import DataError, listed
from pipelines.recipe import Checks, Data

SLICE = "slice:"
NO_VALUE = "(none)"
TRACE = ("source_file", "source_row", "reasons")  # the columns of a quarantine that are not the data's own


@dataclass(frozen=True)
class Checked:
    """Every row that was read, on one of two sides.

    Attributes:
        accepted: columns text, pair (where the recipe names one), label or target, split (None where the data name no
            side), one per slice, source_file, source_row.
        quarantine: the data's own columns as they were, `raw` for a row that could not be parsed, then source_file,
            source_row (from 0; for CSV the header does not count) and reasons (joined by semicolons).
        reasons: how many rows have each kind of fault, the most frequent first.
        masked: how many personal data of each kind were masked, before the rules saw the texts.
    """

    accepted: pd.DataFrame
    quarantine: pd.DataFrame
    reasons: dict[str, int]
    masked: dict[str, int]

    @property
    def read(self) -> int:
        """How many rows the files hold."""
        return len(self.accepted) + len(self.quarantine)


@dataclass(frozen=True)
class Rule:
    """One thing that holds for a value, the kind of fault where it does not, and that fault in words."""

    kind: str
    holds: Callable[[Any], bool]
    explain: Callable[[Any], str]


def check_rows(files: Mapping[str, Rows], data: Data) -> Checked:
    """The rows of all files, those that keep the contract and those that do not.

    Raises:
        DataError: a file lacks a column that the recipe names.
    """
    rules = _rules(data)
    accepted, quarantine, kinds, hidden = [], [], Counter[str](), Counter[str]()
    for name, rows in files.items():
        kinds.update(broken.kind for broken in rows.broken)
        trace = {
            "source_file": name,
            "source_row": [b.row for b in rows.broken],
            "reasons": [b.reason for b in rows.broken],
        }
        quarantine.append(pd.DataFrame({"raw": [b.raw for b in rows.broken], **trace}, dtype=object))
        if rows.frame.columns.empty:
            continue
        frame = _the_columns(rows.frame, name, data)
        if data.checks.personal_data == "mask":
            hidden.update(_mask(frame, data.checks.phone_region))
        faults = _faults(frame, rules)
        kinds.update(rule.kind for broken in faults.values() for _, rule in broken)
        good = frame[~frame.index.isin(faults)].assign(source_file=name)
        accepted.append(good.assign(source_row=good.index))
        reasons = ["; ".join(rule.explain(frame.at[row, column]) for column, rule in faults[row]) for row in faults]
        bad = rows.frame.loc[list(faults)].assign(source_file=name, source_row=list(faults), reasons=reasons)
        quarantine.append(bad.astype(object))
    return Checked(_canonical(accepted, data), gathered(quarantine), dict(kinds.most_common()), dict(hidden))


def _rules(data: Data) -> dict[str, list[Rule]]:
    """What must hold for the texts, the label or target, and the split of a row, by the names of the data's columns."""
    labels, sides = frozenset(data.labels), frozenset((*SPLITS, *ALIASES))
    rules = {"text": _text_rules(data.text, data.checks, data.checks.min_chars)}
    if data.pair is not None:
        rules["pair"] = _text_rules(data.pair, data.checks, data.checks.min_chars)
    if data.target is not None:
        rules["target"] = _text_rules(data.target, data.checks, 1)  # an answer may be shorter than a text must be
    else:
        label = Rule(
            f"{data.label} is not one of the {len(labels)} labels",
            lambda v: as_label(v) in labels,
            lambda v: f"{data.label} {_shown(v)} is not one of the {len(labels)} labels",
        )
        rules["label"] = [_not_null(data.label), label]
    if data.split is not None:
        known = Rule(
            f"{data.split} is not a split",
            lambda v: isinstance(v, str) and v in sides,
            lambda v: f"{data.split} {_shown(v)} is not 'train', 'validation' or 'test'",
        )
        rules["split"] = [_not_null(data.split), known]
    return rules


def _text_rules(column: str, checks: Checks, low: int) -> list[Rule]:
    """What must hold for a text in a column, which has at least `low` characters."""
    high = checks.max_chars
    short = f"{column} is empty" if low == 1 else f"{column} is shorter than {low} characters"
    rules = [
        _not_null(column),
        Rule(f"{column} is not a string", _is_string, lambda v: f"{column} {_shown(v)} is not a string"),
        Rule(
            short,
            lambda v: _chars(v, low) >= low,
            lambda v: short if low == 1 else f"{column} has {_chars(v)} characters, fewer than {low}",
        ),
        Rule(
            f"{column} is longer than {high} characters",
            lambda v: _chars(v, high) <= high,
            lambda v: f"{column} has {_chars(v)} characters, more than {high}",
        ),
    ]
    if checks.encoding_damage == "quarantine":
        mend = "mend it at the source, or name data.encoding"
        rules.append(_asked(f"{column} has damaged characters", lambda v: not damaged(v), mend))
    if checks.languages:
        check_languages(checks.languages)
        mend = f"remove it, or add its language to data.checks.languages ({listed(checks.languages)})"
        expected = f"{column} is in a language that is not expected"
        rules.append(_asked(expected, lambda v: other_language(v, checks.languages) is None, mend))
    if checks.personal_data == "quarantine":
        mend = "remove it at the source, or set data.checks.personal_data = 'mask'"
        for kind, words in KINDS.items():
            rules.append(_asked(f"{column} holds {words}", partial(_lacks, kind, checks.phone_region), mend))
    return rules


def _asked(kind: str, holds: Callable[[str], bool], mend: str) -> Rule:
    """A rule on what a string says. Its reason does not show the text: it may be what nobody should read."""
    return Rule(kind, lambda v: not isinstance(v, str) or holds(v), lambda _: f"{kind}: {mend}")


def _lacks(kind: str, region: str | None, text: str) -> bool:
    """Whether a text has no personal data of this kind."""
    return all(found != kind for *_, found in personal_data(text, region))


def _mask(rows: pd.DataFrame, region: str | None) -> Counter[str]:
    """Put masks for personal data into the texts of these rows, and count them."""
    counts = Counter[str]()
    for name in written_columns(rows):
        texts = list(rows[name])
        for place, text in enumerate(texts):
            if isinstance(text, str):
                texts[place], found = masked(text, region)
                counts.update(found)
        rows[name] = pd.Series(texts, rows.index, dtype=object)
    return counts


def _not_null(column: str) -> Rule:
    """The first rule of every column; pandera applies it by itself and shows no null to the others."""
    return Rule(f"{column} is null", lambda v: not pd.isna(v), lambda _: f"{column} is null")


def as_label(value: object) -> object:
    """An integer as its digits, so that `3` in the data is the label '3' of the recipe; everything else as it is."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def slice_column(name: str) -> str:
    """What the column of a slice is called among the accepted rows: no column of theirs, whatever the data call it."""
    return f"{SLICE}{name}"


def as_slice(value: object) -> str:
    """The value of a slice as text; a row that has none is in the slice of those without."""
    return NO_VALUE if pd.isna(value) or value == "" else str(value)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _chars(value: object, otherwise: int = 0) -> int:
    """The length without outer white space; `otherwise` for what is not a string and has a fault of its own."""
    return len(value.strip()) if isinstance(value, str) else otherwise


def _shown(value: object) -> str:
    """A value as an error message shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def _the_columns(frame: pd.DataFrame, name: str, data: Data) -> pd.DataFrame:
    """Columns text, pair, label or target, split (pair and split where the recipe names them), and those of slices.

    Raises:
        DataError: one of them is not there.
    """
    truth = data.label if data.target is None else data.target
    asked = {"text": data.text, "pair": data.pair, data.truth: truth, "split": data.split}
    wanted = {ours: theirs for ours, theirs in asked.items() if theirs is not None}
    wanted |= {slice_column(name): name for name in data.slices}
    if missing := [column for column in wanted.values() if column not in frame.columns]:
        raise DataError(
            f"{name!r} has no column {listed(missing)}. Its columns: {listed(frame.columns)}. "
            "Name the columns in [data]: text, label or target, split and slices, and pair for a second text."
        )
    return pd.DataFrame({ours: frame[theirs] for ours, theirs in wanted.items()}, dtype=object)


def _faults(frame: pd.DataFrame, rules: Mapping[str, list[Rule]]) -> dict[int, list[tuple[str, Rule]]]:
    """`{row: [(column, rule it breaks)]}` in the order of the rows, then of the rules."""
    import pandera.pandas as pa

    columns = {}
    for name, (_, *others) in rules.items():
        checks = [pa.Check(rule.holds, element_wise=True, name=rule.kind) for rule in others]
        columns[name] = pa.Column(object, checks, nullable=False)
    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
    else:
        return {}
    order = {rule.kind: place for place, rule in enumerate(rule for those in rules.values() for rule in those)}
    by_kind = {rule.kind: (name, rule) for name, those in rules.items() for rule in those}
    found: dict[int, set[str]] = {}
    for name, check, row in zip(cases["column"], cases["check"], cases["index"], strict=True):
        found.setdefault(int(row), set()).add(rules[name][0].kind if check == "not_nullable" else check)
    return {row: [by_kind[kind] for kind in sorted(found[row], key=order.__getitem__)] for row in sorted(found)}


def _canonical(accepted: list[pd.DataFrame], data: Data) -> pd.DataFrame:
    """The accepted rows of all files, labels and slices as strings, targets as they are, splits by their own names."""
    texts = ["text"] if data.pair is None else ["text", "pair"]
    slices = [slice_column(name) for name in data.slices]
    columns = [*texts, data.truth, "split", *slices, "source_file", "source_row"]
    rows = pd.concat([pd.DataFrame(columns=columns, dtype=object), *accepted], ignore_index=True)
    truths = list(rows["target"]) if data.target is not None else [as_label(label) for label in rows["label"]]
    sides = [ALIASES.get(side, side) if isinstance(side, str) else None for side in rows["split"]]
    index = rows.index
    named = {data.truth: pd.Series(truths, index, dtype=object), "split": pd.Series(sides, index, dtype=object)}
    named |= {name: pd.Series([as_slice(value) for value in rows[name]], index, dtype=object) for name in slices}
    return rows.assign(**named)[columns]


def gathered(quarantine: list[pd.DataFrame]) -> pd.DataFrame:
    """The quarantines of all files in the order of files and rows, the data's own columns first."""
    rows = pd.concat([pd.DataFrame(columns=["raw", *TRACE], dtype=object), *quarantine], ignore_index=True)
    rows = rows.sort_values(["source_file", "source_row"], kind="stable", ignore_index=True)
    own = [column for column in rows.columns if column not in ("raw", *TRACE)]
    return rows[[*own, "raw", *TRACE]].astype(object)
