"""A stage runs once for the same inputs, and again when anything it depends on differs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.memo import Stage, once, recall, remember
from pipelines.store.local import LocalStore

STAGE = Stage("tokenize", version=1)
INPUTS = {"data": "a" * 64, "max_tokens": 128}


class Counted:
    """A computation that knows how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> dict[str, Any]:
        self.runs += 1
        return {"run": self.runs, "labels": ["ä", "b"], "share": 0.1}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_stage_runs_once(store: LocalStore) -> None:
    compute = Counted()
    first = once(store, STAGE, INPUTS, compute)
    again = once(LocalStore(store.folder), STAGE, dict(reversed(INPUTS.items())), compute)
    assert compute.runs == 1
    assert again.value == first.value == {"run": 1, "labels": ["ä", "b"], "share": 0.1}
    assert (first.reused, again.reused) == (False, True)
    assert again.seconds == first.seconds


def test_the_seconds_are_those_of_the_computation(store: LocalStore) -> None:
    made = once(store, STAGE, INPUTS, lambda: time.sleep(0.05) or {})
    assert 0.05 <= made.seconds < 5


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [
        (Stage("tokenize", version=2), INPUTS),
        (Stage("train", version=1), INPUTS),
        (STAGE, INPUTS | {"max_tokens": 129}),
        (STAGE, INPUTS | {"more": None}),
        (STAGE, {"data": "a" * 64}),
    ],
    ids=["version", "name", "value", "more", "less"],
)
def test_whatever_differs_runs_again(store: LocalStore, stage: Stage, inputs: dict[str, Any]) -> None:
    compute = Counted()
    once(store, STAGE, INPUTS, compute)
    assert once(store, stage, inputs, compute).value["run"] == 2
    assert len(store.keys("memo/")) == 2


def test_a_failed_computation_is_not_remembered(store: LocalStore) -> None:
    with pytest.raises(ZeroDivisionError):
        once(store, STAGE, INPUTS, lambda: {"value": 1 // 0})
    assert recall(store, STAGE, INPUTS) is None
    assert once(store, STAGE, INPUTS, Counted()).value["run"] == 1


def test_an_empty_result_is_a_result(store: LocalStore) -> None:
    remember(store, STAGE, INPUTS, {}, 0.0)
    known = recall(store, STAGE, INPUTS)
    assert known is not None and known.value == {} and known.reused
    assert once(store, STAGE, INPUTS, Counted()).value == {}


def test_what_is_no_json_is_not_remembered(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        once(store, STAGE, INPUTS, lambda: {"loss": float("nan")})
    assert store.keys("") == []


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=1), st.randoms())
def test_the_key_does_not_depend_on_the_order(inputs: dict[str, Any], random: Any) -> None:
    items = list(inputs.items())
    random.shuffle(items)
    key = STAGE.key(dict(items))
    assert key == STAGE.key(inputs)
    assert key.startswith("memo/tokenize/") and key.endswith(".json")
