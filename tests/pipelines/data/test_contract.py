from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.contract import check_rows
from pipelines.data.reading import Broken, Rows
from pipelines.errors import DataError
from pipelines.recipe import Checks


def rows(*records, broken=()):
    return Rows(pd.DataFrame(list(records), dtype=object), broken)


def reasons(checked):
    return dict(zip(checked.quarantine["source_row"], checked.quarantine["reasons"], strict=True))


def test_what_keeps_the_contract_is_accepted(make_data):
    checked = check_rows({"f": rows({"text": "x", "label": "a"}, {"text": "y", "label": "b"})}, make_data())
    assert checked.accepted.to_dict("records") == [
        {"text": "x", "label": "a", "split": None, "source_file": "f", "source_row": 0},
        {"text": "y", "label": "b", "split": None, "source_file": "f", "source_row": 1},
    ]
    assert (len(checked.quarantine), checked.reasons, checked.read) == (0, {}, 2)


def test_both_texts_of_a_pair_are_held_to_the_contract(make_data):
    data = make_data(text="question", pair="passage", checks=Checks(max_chars=9))
    good = {"question": "why", "passage": "because", "label": "a"}
    bad = [{"passage": None}, {"passage": 3}, {"passage": "much too long"}, {"passage": "  ", "question": ""}]
    checked = check_rows({"f": rows(good, *({**good, **change} for change in bad))}, data)
    assert checked.accepted.to_dict("records") == [
        {"text": "why", "pair": "because", "label": "a", "split": None, "source_file": "f", "source_row": 0}
    ]
    assert list(reasons(checked).values()) == [
        "passage is null",
        "passage 3 is not a string",
        "passage has 13 characters, more than 9",
        "question is empty; passage is empty",
    ]
    assert checked.quarantine["passage"].to_list()[2] == "much too long"
    with pytest.raises(DataError, match="'f' has no column 'passage'"):
        check_rows({"f": rows({"question": "why", "label": "a"})}, data)


LABELS = "is not one of the 2 labels"
SPLITS = "is not 'train', 'validation' or 'test'"


@pytest.mark.parametrize(
    ("changes", "reason", "kind"),
    [
        ({"text": None}, "text is null", "text is null"),
        ({"text": float("nan")}, "text is null", "text is null"),
        ({"text": 7}, "text 7 is not a string", "text is not a string"),
        ({"text": ["x"]}, "text ['x'] is not a string", "text is not a string"),
        ({"text": " x\n"}, "text has 1 characters, fewer than 2", "text is shorter than 2 characters"),
        ({"text": "long " * 3}, "text has 14 characters, more than 9", "text is longer than 9 characters"),
        ({"label": "biling"}, f"label 'biling' {LABELS}", f"label {LABELS}"),
        ({"label": " a"}, f"label ' a' {LABELS}", f"label {LABELS}"),
        ({"label": True}, f"label True {LABELS}", f"label {LABELS}"),
        ({"label": ["a"]}, f"label ['a'] {LABELS}", f"label {LABELS}"),
        ({"label": None}, "label is null", "label is null"),
        ({"split": "dev set"}, f"split 'dev set' {SPLITS}", "split is not a split"),
        ({"split": 3}, f"split 3 {SPLITS}", "split is not a split"),
        ({"split": None}, "split is null", "split is null"),
    ],
)
def test_what_does_not_is_quarantined_with_its_reason(changes, reason, kind, make_data):
    data = make_data(split="split", checks=Checks(min_chars=2, max_chars=9))
    good = {"text": "good", "label": "b", "split": "test"}
    checked = check_rows({"f": rows(good, good | changes, good)}, data)
    assert checked.accepted["source_row"].to_list() == [0, 2]
    assert reasons(checked) == {1: reason}
    assert checked.reasons == {kind: 1}


def test_a_row_has_every_reason_and_its_columns_as_they_were(make_data):
    bad = {"text": 5, "label": "z" * 200, "extra": {"k": 1}}
    checked = check_rows({"f": rows({"text": "x", "label": "a", "extra": 1}, bad)}, make_data())
    row = checked.quarantine.iloc[0]
    assert row[["text", "label", "extra"]].to_dict() == bad
    first, second = row["reasons"].split("; ")
    assert first == "text 5 is not a string"
    assert second.endswith("...' is not one of the 2 labels")
    assert len(second) < 120
    assert checked.quarantine.columns.to_list() == [
        "text",
        "label",
        "extra",
        "raw",
        "source_file",
        "source_row",
        "reasons",
    ]


def test_integer_labels_are_compared_as_their_digits(make_data):
    numbers = rows(
        {"text": "x", "label": 0}, {"text": "y", "label": "1"}, {"text": "z", "label": 2}, {"text": "z", "label": 1.0}
    )
    checked = check_rows({"f": numbers}, make_data(labels=("0", "1")))
    assert checked.accepted["label"].to_list() == ["0", "1"]
    assert reasons(checked) == {2: "label 2 is not one of the 2 labels", 3: "label 1.0 is not one of the 2 labels"}


def test_a_truth_value_is_no_label_even_where_its_name_is_one(make_data):
    checked = check_rows({"f": rows({"text": "x", "label": True})}, make_data(labels=("True", "1")))
    assert reasons(checked) == {0: "label True is not one of the 2 labels"}


def test_splits_have_aliases(make_data):
    sides = ["train", "dev", "val", "valid", "validation", "test"]
    checked = check_rows(
        {"f": rows(*({"text": "x", "label": "a", "split": side} for side in sides))}, make_data(split="split")
    )
    assert checked.accepted["split"].to_list() == ["train", *["validation"] * 4, "test"]


def test_reasons_speak_of_the_columns_that_the_recipe_names(make_data):
    data = make_data(text="body", label="topic", split="part")
    checked = check_rows({"f": rows({"body": None, "topic": "q", "part": "x", "text": "unused"})}, data)
    assert reasons(checked)[0] == (
        "body is null; topic 'q' is not one of the 2 labels; part 'x' is not 'train', 'validation' or 'test'"
    )


def test_broken_rows_join_the_quarantine_of_all_files_in_order(make_data):
    fault = Broken(0, "{bad", "not valid JSON", "not valid JSON: really")
    first = Rows(
        pd.DataFrame([{"text": "x", "label": "q"}, {"text": "y", "label": "a"}], index=[1, 4], dtype=object), (fault,)
    )
    checked = check_rows({"f": first, "g": rows({"text": "z", "label": "q", "more": 1}), "h": rows()}, make_data())
    found = checked.quarantine[["source_file", "source_row", "raw"]].fillna("").to_numpy().tolist()
    assert found == [["f", 0, "{bad"], ["f", 1, ""], ["g", 0, ""]]
    assert checked.accepted[["source_file", "source_row"]].to_numpy().tolist() == [["f", 4]]
    assert list(checked.reasons.items()) == [("label is not one of the 2 labels", 2), ("not valid JSON", 1)]
    assert checked.read == 4


def test_a_missing_column_names_those_that_exist(make_data):
    with pytest.raises(DataError, match=r"'g' has no column 'label'. Its columns: 'tag', 'text'"):
        check_rows({"f": rows({"text": "x", "label": "a"}), "g": rows({"text": "x", "tag": "a"})}, make_data())
    with pytest.raises(DataError, match="no column 'split'"):
        check_rows({"f": rows({"text": "x", "label": "a"})}, make_data(split="split"))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("a"), st.lists(st.text())
)


@settings(max_examples=15, deadline=None)
@given(records=st.lists(st.fixed_dictionaries({"text": VALUES, "label": VALUES}), min_size=1, max_size=6))
def test_no_row_is_lost_and_none_is_on_both_sides(make_data, records):
    checked = check_rows({"f": rows(*records)}, make_data())
    places = [*checked.accepted["source_row"], *checked.quarantine["source_row"]]
    assert sorted(places) == list(range(len(records)))
    assert all(isinstance(text, str) and text.strip() for text in checked.accepted["text"])
    assert set(checked.accepted["label"]) <= {"a", "b"}
    assert all(checked.quarantine["reasons"])
