"""Data that nothing can be learnt from: one clear error, and no report in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DataError
from pipelines.recipe import load_recipe
from pipelines.store.opening import the_store
from tasks.data import snapshot, validate

RECIPE = """
name = "talk"
base = { name = "none", sources = ["file://none"] }
data = { path = "talk.csv", labels = ["apples", "boats"], checks = { max_chars = 40, min_rows = 20 } }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
"""


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], dict[str, Any]]:
    """The report on the lines of a CSV file, as the flow gets it."""
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))
    for name in ("PROMPTMINT_STORE", "PROMPTMINT_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "talk.toml").write_text(RECIPE)

    def make(lines: list[str]) -> dict[str, Any]:
        (tmp_path / "talk.csv").write_text("\n".join(["text,label", *lines, ""]))
        recipe = load_recipe(tmp_path / "talk.toml")
        found: dict[str, Any] = validate.fn(recipe, snapshot.fn(recipe))
        return found

    return make


def good(count: int) -> list[str]:
    return [f"sentence {number},{'apples' if number % 2 else 'boats'}" for number in range(count)]


def test_an_empty_set_is_an_error(report: Callable[[list[str]], dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="The data hold no rows"):
        report([])
    assert the_store().keys("memo/") == []


def test_so_is_one_class_alone(report: Callable[[list[str]], dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="rows of one label alone, 'apples'; learning needs two"):
        report([f"sentence {number},apples" for number in range(60)])
    assert the_store().keys("memo/") == []


def test_texts_over_the_limit_are_quarantined_and_too_many_refused(
    report: Callable[[list[str]], dict[str, Any]],
) -> None:
    found = report([*good(60), *(f"{'very ' * 9}long {number},apples" for number in range(10))])
    assert found["ok"] is False and found["rows"]["quarantined"] == 10
    assert "10 of 70 rows (14.3%) were quarantined" in found["problems"][0]
    assert found["reasons"] == {"text is longer than 40 characters": 10}


def test_the_same_data_are_checked_once(report: Callable[[list[str]], dict[str, Any]]) -> None:
    first = report(good(60))
    assert first["ok"] and report(good(60)) == first  # a second check would give its Data Docs another time and digest
    assert len(the_store().keys("memo/validate/")) == 1
