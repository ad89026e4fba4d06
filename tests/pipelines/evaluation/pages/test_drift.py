"""Drift on the page, at the terminal and in Markdown: the numbers of the record, and no words where none may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from pipelines.evaluation.drift import drift_rows, moved_lines
from pipelines.evaluation.pages.drift import load_words
from pipelines.evaluation.pages.run import run_page
from pipelines.evaluation.report import markdown
from pipelines.store.local import LocalStore
from promptmint.terminal import show_run

Read = Callable[[str], Any]


def test_each_distance_stands_there_with_its_outcome_and_reason(drifted: dict[str, Any], read: Read) -> None:
    page = read(run_page(drifted))
    for told in ("Title of labels moved", "Title of length not proven", "Title of unseen within", "Reason for length."):
        assert told in page.text
    assert "2,000 of this run's 6,000 training and validation examples against 2,000 of the 5,000" in page.text
    assert "learnt from 7 of the 300 test examples" in page.text
    assert "40.0 % to 60.0 %" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "0 to 10 characters: 20.0 % now" in page.text
    assert "boats <i>" in page.text  # a label, not an element


def test_an_interval_is_drawn_beside_its_threshold(drifted: dict[str, Any], read: Read) -> None:
    page = read(run_page({**drifted, "gates": []}))
    margins = {float(line["x1"].rstrip("%")) for line in page.of("line", "margin")}
    (limit,) = margins
    low, high = sorted({float(str(bar["x1"]).rstrip("%")) for bar in page.of("line", "refused")} - {limit})[:2]
    assert limit < low < high
    assert (low - 2) / (limit - 2) == pytest.approx(1.6, abs=0.01)


def test_words_are_shown_to_whoever_may_read_the_store_and_to_nobody_else(
    drifted: dict[str, Any], store: LocalStore, read: Read
) -> None:
    words = load_words(store, drifted)
    assert words and words["new"] == [["<b>quince", 0.0, 0.004]]
    shown, published = read(run_page(drifted, changed=words)), read(run_page(drifted))
    assert "<b>quince 0.00 4.00" in shown.text
    assert "quince" not in published.source and "Words were left out" in published.text
    assert "quince" not in json.dumps(drifted) + markdown(drifted)


def test_words_that_the_store_let_go_of_are_left_out(drifted: dict[str, Any], store: LocalStore, read: Read) -> None:
    drifted["drift"]["words"] = "0" * 64
    assert load_words(store, drifted) is None


def test_a_run_that_asked_for_no_drift_has_no_word_of_it(record: dict[str, Any], read: Read) -> None:
    page = read(run_page({**record, "seen_by_champion": None}))
    assert "Drift" not in page.text and "Drift" not in markdown(record)
    assert drift_rows(record) == moved_lines(record) == []


def test_what_could_not_be_compared_is_said(record: dict[str, Any], read: Read) -> None:
    nothing = {"then": "note", "against": None, "why_not": "there is no champion yet", "measures": [], "moved": []}
    told = {**record, "drift": nothing}
    assert "There is no champion yet." in read(run_page(told)).text
    assert "There is no champion yet" in markdown(told)


def test_markdown_and_the_terminal_tell_the_same(drifted: dict[str, Any]) -> None:
    assert "| title of labels | 0.280 | 0.040 | 0.160 | 0.340 | 0.1 | yes |" in markdown(drifted)
    assert "- Title of labels reason for labels." in markdown(drifted)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    show_run(console, drifted)
    told = console.export_text()
    assert "title of length" in told and "not proven" in told
    assert "Drift: title of labels reason for labels" in told
