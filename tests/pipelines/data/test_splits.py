from __future__ import annotations

import hashlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.splits import normalised, position, split_rows


def frame(rows):
    """Accepted rows from `(text, label, split or None)`."""
    table = pd.DataFrame(rows, columns=["text", "label", "split"], dtype=object)
    return table.assign(source_file="f", source_row=range(len(rows)))


def sides(split):
    return dict(zip(split.rows["text"], split.rows["split"], strict=True))


def many(count, split=None, label="a"):
    return [(f"{split} {label} text {number}", label, split) for number in range(count)]


@pytest.mark.parametrize("other", ["HELLO  world", " hello\tWorld\n", "ｈｅｌｌｏ world", "hello world"])
def test_what_differs_in_case_space_or_width_is_one_text(other):
    assert normalised(other) == normalised("Hello world")


def test_the_position_of_a_text_is_fixed_for_ever():
    wanted = int(hashlib.sha256(b"promptmint split 1\0hello").hexdigest()[:16], 16) / 2**64
    assert position("hello") == pytest.approx(wanted, abs=2**-52)
    assert position("hello") != position("hello", "validation")


@given(text=st.text())
def test_a_position_lies_in_the_unit_interval(text):
    assert 0 <= position(text) < 1


def test_fractions_are_kept_and_the_two_draws_are_independent(make_data):
    counts = (
        split_rows(frame(many(5000)), make_data(test_fraction=0.2, validation_fraction=0.1))
        .rows["split"]
        .value_counts()
    )
    assert counts["test"] == pytest.approx(1000, abs=120)
    assert counts["validation"] == pytest.approx(400, abs=80)


TEXTS = st.text(st.sampled_from("aAbB cß\u00a0"), min_size=1, max_size=4)
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from("ab"), st.none()), min_size=1, max_size=12)
SIDED = st.lists(st.tuples(TEXTS, st.sampled_from("ab"), st.sampled_from(["train", "validation", "test"])), max_size=12)


@settings(max_examples=20, deadline=None)
@given(rows=ROWS, more=ROWS)
def test_adding_data_moves_no_example(make_data, rows, more):
    data = make_data(test_fraction=0.4, validation_fraction=0.4)
    before, after = sides(split_rows(frame(rows), data)), sides(split_rows(frame(rows + more), data))
    assert {text: after[text] for text in before} == before


@settings(max_examples=20, deadline=None)
@given(rows=st.one_of(ROWS, SIDED), order=st.randoms())
def test_no_text_straddles_no_row_is_lost_and_the_order_is_ours(make_data, rows, order):
    data = make_data(test_fraction=0.4, validation_fraction=0.4)
    split = split_rows(frame(rows), data)
    by_text = split.rows.assign(normal=split.rows["text"].map(normalised)).groupby("normal")["split"].nunique()
    assert (by_text == 1).all()
    assert split.rows["id"].is_unique
    order_of_rows = [(["train", "validation", "test"].index(s), i) for i, s in split.rows[["id", "split"]].to_numpy()]
    assert order_of_rows == sorted(order_of_rows)
    assert len(split.rows) + len(split.leaks) == len(rows)
    shuffled = order.sample(rows, len(rows))
    assert split_rows(frame(shuffled), data).rows.equals(split.rows)


def test_sides_that_the_data_name_are_honoured(make_data):
    rows = many(30, "train") + many(5, "validation") + many(5, "test")
    found = sides(split_rows(frame(rows), make_data(test_fraction=0.5, validation_fraction=0.5)))
    assert found == {text: side for text, _, side in rows}


def test_what_the_data_do_not_bring_is_carved_from_training_rows(make_data):
    data = make_data(test_fraction=0.5, validation_fraction=0.5)
    found = sides(split_rows(frame(many(100, "train") + many(10, "test")), data))
    assert all(found[text] == "test" for text, *_ in many(10, "test"))
    assert {found[text] for text, *_ in many(100, "train")} == {"train", "validation"}
    found = sides(split_rows(frame(many(100, "train") + many(10, "validation")), data))
    assert all(found[text] == "validation" for text, *_ in many(10, "validation"))
    assert {found[text] for text, *_ in many(100, "train")} == {"train", "test"}


def test_leaks_are_dropped_and_reported(make_data):
    rows = [
        ("Same", "a", "test"),
        ("same ", "a", "train"),
        ("SAME", "b", "validation"),
        ("tuned", "a", "validation"),
        ("Tuned", "a", "train"),
        ("fresh", "a", "train"),
    ]
    split = split_rows(frame(rows), make_data())
    assert sides(split) == {"Same": "test", "tuned": "validation", "fresh": "train"}
    found = split.leaks[["source_row", "split", "reasons"]].to_numpy().tolist()
    assert found == [
        [1, "train", "the text also occurs in the test split"],
        [2, "validation", "the text also occurs in the test split"],
        [4, "train", "the text also occurs in the validation split"],
    ]


def test_duplicates_are_kept_counted_and_told_apart(make_data):
    rows = [("x", "a", "train"), ("x", "a", "train"), ("X", "a", "train"), ("x", "b", "train"), ("y", "a", "test")]
    split = split_rows(frame([*rows, ("z", "a", "validation")]), make_data())
    assert split.duplicates == 2  # of the text "x": two more
    assert split.rows["id"].is_unique
    alone = split_rows(frame([rows[0], *rows[4:], ("z", "a", "validation")]), make_data())
    assert set(alone.rows["id"]) < set(split.rows["id"])
    assert split.rows["split"].to_list() == ["train"] * 4 + ["validation", "test"]


def test_no_rows_make_no_splits(make_data):
    split = split_rows(frame([]), make_data())
    assert (len(split.rows), len(split.leaks), split.duplicates) == (0, 0, 0)


def test_copies_of_a_text_keep_their_slices_in_whatever_order_they_arrive(make_data):
    rows = frame([("twice", "a", "test"), ("twice", "a", "test"), *many(20)])
    rows["slice:country"] = ["fr", "de"] + ["-"] * 20
    data = make_data(slices=("country",))
    forth, back = split_rows(rows, data).rows, split_rows(rows.iloc[::-1], data).rows
    assert forth.columns.to_list() == ["id", "text", "label", "split", "slice:country"]
    assert forth.equals(back)
    assert sorted(forth.loc[forth["text"] == "twice", "slice:country"]) == ["de", "fr"]


def test_a_pair_counts_as_one_text(make_data):
    """Its side follows from both texts, and only both together are a copy."""
    rows = frame([(f"text {number % 20}", "a", None) for number in range(400)])
    rows.insert(1, "pair", [f"second {number // 20}" for number in range(400)])
    split = split_rows(rows, make_data())
    assert split.rows.columns.to_list() == ["id", "text", "pair", "label", "split"]
    assert (len(split.rows), len(split.leaks), split.duplicates, split.rows["id"].nunique()) == (400, 0, 0, 400)
    assert split.rows.groupby("text")["split"].nunique().max() > 1 < split.rows.groupby("pair")["split"].nunique().max()
    swapped = split_rows(rows.rename(columns={"text": "pair", "pair": "text"}), make_data())
    assert set(swapped.rows["id"]).isdisjoint(split.rows["id"])

    held_out, copy = rows.iloc[[0]].assign(split="test"), rows.iloc[[0]].assign(split="train", pair=" SECOND  0")
    again = split_rows(pd.concat([rows.iloc[1:], held_out, copy], ignore_index=True), make_data())
    assert again.leaks["pair"].to_list() == [" SECOND  0"]
