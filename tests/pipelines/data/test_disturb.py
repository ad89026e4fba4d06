"""Disturbances are held to what they say: what they change, how much of it, and that nothing else moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.disturb import disturb_split, disturbed
from pipelines.data.validate import write_rows
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, save_tree

TEXT = "The courier's parcel, from Ulm, never came. Please refund me!"
KINDS = ("typos", "lower", "upper", "title", "punctuation", "truncation")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("kind", "rate", "becomes"),
    [
        ("lower", None, "the courier's parcel, from ulm, never came. please refund me!"),
        ("upper", None, "THE COURIER'S PARCEL, FROM ULM, NEVER CAME. PLEASE REFUND ME!"),
        ("title", None, "The Courier's Parcel, From Ulm, Never Came. Please Refund Me!"),
        ("punctuation", None, "The couriers parcel from Ulm never came Please refund me"),
        ("truncation", 0.3, "The courier's parcel, from Ulm, never came."),
        ("truncation", 0.99, "The"),
    ],
)
def test_what_each_disturbance_makes_of_a_text(kind: str, rate: float | None, becomes: str) -> None:
    assert disturbed(TEXT, kind, rate, rng()) == becomes


def test_typos_are_as_many_as_asked_for_and_of_all_four_ways() -> None:
    text = "abcdefgh " * 20_000
    typed = disturbed(text, "typos", 0.1, rng())
    doubled_less_dropped = len(typed) - len(text)
    assert abs(doubled_less_dropped) < 0.01 * len(text), "as many are doubled as are left out, nearly"
    words = np.array(typed.split(" "))
    untouched = np.mean(words == "abcdefgh")
    assert untouched == pytest.approx(0.9**8, abs=0.02)
    for way in ("bacdefgh", "bcdefgh", "aabcdefgh", "sbcdefgh"):
        assert np.mean(words == way) == pytest.approx(0.1 / 4 * 0.9**7, rel=0.15), way


@given(st.text(min_size=1, max_size=60), st.sampled_from(KINDS), st.floats(0.01, 0.99), st.integers(0, 5))
def test_some_text_is_always_left_and_equal_seeds_make_equal_ones(text: str, kind: str, rate: float, seed: int) -> None:
    first = disturbed(text, kind, rate, rng(seed))
    assert first == disturbed(text, kind, rate, rng(seed))
    assert bool(first.strip()) == bool(text.strip())


def test_a_disturbance_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'noise'"):
        disturbed(TEXT, "noise", None, rng())


def split(store: LocalStore, folder: Path, ids: list[str], pairs: bool = False) -> str:
    rows = pd.DataFrame({"id": ids, "text": [f"{TEXT} {name}" for name in ids], "label": "shipping"})
    if pairs:
        rows["pair"] = "And A Second One."
    folder.mkdir()
    write_rows(rows, folder / "examples.parquet")
    return save_tree(store, folder)


def test_a_split_keeps_its_ids_and_labels_and_new_rows_leave_old_ones_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    few = split(store, tmp_path / "few", ["a", "b"])
    more = split(store, tmp_path / "more", ["a", "aa", "b"])

    def texts(tree: str, seed: int = 0) -> dict[str, str]:
        made = disturb_split(store, tree, "typos", 0.2, seed, tmp_path / "cache")
        rows = pd.read_parquet(load_tree(store, made["tree"], tmp_path / "cache") / "examples.parquet")
        assert set(rows["label"]) == {"shipping"} and made["changed"] == len(rows)
        return dict(zip(rows["id"], rows["text"], strict=True))

    before, after = texts(few), texts(more)
    assert list(after) == ["a", "aa", "b"]
    assert {name: after[name] for name in before} == before == texts(few)
    assert texts(few, seed=1) != before


def test_both_texts_of_a_pair_are_disturbed_and_what_stays_is_not_counted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    tree = split(store, tmp_path / "pairs", ["a", "b"], pairs=True)
    made = disturb_split(store, tree, "lower", None, 0, tmp_path / "cache")
    rows = pd.read_parquet(load_tree(store, made["tree"], tmp_path / "cache") / "examples.parquet")
    assert list(rows["pair"]) == ["and a second one."] * 2 and made["changed"] == 2
    assert disturb_split(store, made["tree"], "lower", None, 0, tmp_path / "cache")["changed"] == 0
