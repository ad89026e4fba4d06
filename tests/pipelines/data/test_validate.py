from __future__ import annotations

import json
import tempfile

import pandas as pd
import pytest

from pipelines.data.snapshot import snapshot
from pipelines.data.validate import STAGE, load_slices, load_split, rows_digest, validate
from pipelines.data.writing import write_rows
from pipelines.digests import canonical_json, digest_file
from pipelines.errors import DataError, NotInStore
from pipelines.recipe import Checks
from pipelines.store.trees import load_tree


def examples(count, labels="ab"):
    return [{"text": f"text {number}", "label": labels[number % len(labels)]} for number in range(count)]


@pytest.fixture
def judge(store, write, tmp_path, make_data):
    """Validates rows with changes to `[data]`; gives the report."""

    def judge(rows, name="x.jsonl", cache="cache", **changes):
        write(name, rows)
        data = make_data(name, **changes)
        return validate(store, snapshot(store, data, tmp_path / "folder").digest, data, tmp_path / cache)

    return judge


def test_good_data_make_a_good_report(judge, store, tmp_path):
    rows = [*examples(200), {"text": "text 0", "label": "a"}, {"text": "bad", "label": "biling"}]
    report = judge(rows)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["rows"] == {"read": 202, "accepted": 201, "quarantined": 1, "leaks_dropped": 0, "duplicates": 1}
    assert sum(report["splits"].values()) == 201
    assert min(report["splits"].values()) > 5
    assert {side: sum(counts.values()) for side, counts in report["labels"].items()} == report["splits"]
    assert report["reasons"] == {"label is not one of the 2 labels": 1}
    assert report["expectations"] == {"passed": 7, "failed": []}
    assert json.loads(canonical_json(report)) == report

    folder = load_tree(store, report["tree"], tmp_path / "cache")
    accepted = pd.read_parquet(folder / "accepted.parquet")
    assert accepted.columns.to_list() == ["id", "text", "label", "split"]
    quarantine = pd.read_parquet(folder / "quarantine.parquet")
    assert quarantine[["text", "label", "source_file", "source_row", "reasons"]].to_numpy().tolist() == [
        ["bad", "biling", "x.jsonl", 201, "label 'biling' is not one of the 2 labels"]
    ]
    for side, count in report["splits"].items():
        rows = load_split(store, report["tree"], side, tmp_path / "cache")
        assert len(rows) == count
        assert rows_digest(rows) == report["split_digests"][side]
        kept = pd.read_parquet(load_tree(store, report["split_trees"][side], tmp_path / "cache") / "examples.parquet")
        assert kept.equals(rows)


def test_the_values_of_slices_are_kept_beside_the_examples(judge, store, tmp_path, make_data):
    countries = ["de", "fr", None, ""]
    rows = [{**row, "country": countries[number % 4], "text2": number} for number, row in enumerate(examples(200))]
    report, plain = judge(rows, slices=("country",)), judge(rows, cache="other")
    data = make_data(slices=("country",))
    found = load_slices(store, report["tree"], data, tmp_path / "cache")["country"]
    texts = {row["text"]: row["country"] or "(none)" for row in rows}
    test = load_split(store, report["tree"], "test", tmp_path / "cache")
    assert found == {example: texts[text] for example, text in zip(test["id"], test["text"], strict=True)}
    assert set(found.values()) == {"de", "fr", "(none)"}
    assert report["split_digests"] == plain["split_digests"] and report["split_trees"] == plain["split_trees"]
    assert load_slices(store, plain["tree"], make_data(), tmp_path / "cache") == {}


def test_a_column_that_groups_nothing_is_no_slice(judge):
    rows = [{**row, "number": number} for number, row in enumerate(examples(200))]
    with pytest.raises(DataError, match=r"'number' of data\.slices has 200 different values, and at most 100"):
        judge(rows, slices=("number",))
    with pytest.raises(DataError, match="no column 'land'"):
        judge(rows, slices=("land",))


def test_pairs_are_judged_and_kept_as_pairs(judge, store, tmp_path):
    rows = [{"q": f"text {number}", "p": f"pair {number % 3}", "label": "ab"[number % 2]} for number in range(120)]
    report = judge([*rows, {"q": "text", "p": "", "label": "a"}], text="q", pair="p")
    assert report["ok"] and report["expectations"] == {"passed": 9, "failed": []}
    assert report["reasons"] == {"p is empty": 1}
    kept = load_split(store, report["tree"], "test", tmp_path / "cache")
    assert kept.columns.to_list() == ["id", "text", "pair", "label"]
    assert rows_digest(kept) == report["split_digests"]["test"] != rows_digest(kept.assign(pair="pair 0"))
    saved = load_tree(store, report["split_trees"]["test"], tmp_path / "cache") / "examples.parquet"
    assert pd.read_parquet(saved).equals(kept)


def test_the_report_has_data_docs_without_paths_of_this_machine(judge, store, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    report = judge(examples(100))
    folder = load_tree(store, report["tree"], tmp_path / "cache")
    pages = [path.read_text() for path in (folder / "data_docs").rglob("*.html")]
    assert len(pages) == 5  # the index, and for each of two suites its expectations and its result
    assert any("no id twice" in page for page in pages)
    assert not any(str(tmp_path) in page or tempfile.gettempdir() in page for page in pages)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_500_000
    assert not list((tmp_path / "scratch").iterdir()), "temporary folders were left behind"
    compact = json.loads((folder / "expectations.json").read_text())
    assert [(one["column"], one["success"], one["observed"]) for one in compact[:2]] == [
        ("rows", True, 100),
        ("unknown_labels", True, {"unexpected": 0}),
    ]


def test_equal_examples_have_equal_digests_in_whatever_files_they_arrive(judge, store, tmp_path):
    first = judge(examples(100))
    second = judge(list(reversed(examples(100))), "y.parquet", cache="other")
    for key in ("split_digests", "split_trees"):
        assert first[key] == second[key]
    files = [load_tree(store, report["tree"], tmp_path / "cache") / "accepted.parquet" for report in (first, second)]
    assert digest_file(files[0]) == digest_file(files[1])
    changed = judge([*examples(100)[1:], {"text": "text 0", "label": "b"}], "z.parquet")
    assert changed["split_digests"] != first["split_digests"]


def test_too_many_bad_rows_are_a_refusal_not_an_error(judge):
    bad = [{"text": f"bad {number}", "label": "biling"} for number in range(7)] + [{"text": "", "label": "a"}]
    report = judge(examples(92) + bad, checks=Checks(min_rows=1, min_rows_per_label=1, max_quarantined=0.05))
    assert report["ok"] is False
    assert report["problems"] == [
        "8 of 100 rows (8.0%) were quarantined, more than the 5.0% of data.checks.max_quarantined: "
        "label is not one of the 2 labels (7), text is empty (1). Labels in the data that the "
        "recipe does not know: 'biling' (7); it knows 'a', 'b'. Name them so in the data, or change data.labels."
    ]
    assert judge(examples(92) + bad, checks=Checks(min_rows=1, min_rows_per_label=1, max_quarantined=0.08))["ok"]


def test_labels_that_were_renamed_are_named_with_those_that_the_recipe_knows(judge):
    renamed = [{"text": f"text {number}", "label": f"A{number % 7}"} for number in range(70)]
    with pytest.raises(DataError) as told:
        judge(renamed)  # every row is in the quarantine
    for words in (
        "No row of 'x.jsonl' keeps the contract, so there is nothing to learn from. 70 rows were quarantined: label is "
        "not one of the 2 labels (70).",
        "not know: 'A0' (10), 'A1' (10), 'A2' (10), 'A3' (10), 'A4' (10) and 2 others; it knows 'a', 'b'.",
        "Mend the data, or what [data] says of them.",
    ):
        assert words in str(told.value)


def test_a_column_that_was_renamed_in_one_delivery_names_the_file_and_the_columns(store, tmp_path, make_data):
    folder = tmp_path / "deliveries"
    folder.mkdir()
    rows = "".join(f"row {number},{'ab'[number % 2]}\n" for number in range(60))
    (folder / "monday.csv").write_text("text,label\n" + rows)
    (folder / "tuesday.csv").write_text("message,label\n" + rows)
    data = make_data("deliveries")
    digest = snapshot(store, data, tmp_path).digest
    with pytest.raises(DataError, match=r"'tuesday.csv' has no column 'text'.*'label', 'message'"):
        validate(store, digest, data, tmp_path / "cache")


def test_failed_expectations_are_a_refusal_in_sentences(judge):
    rows = examples(80) + [{"text": f"rare {number}", "label": "c"} for number in range(4)]
    checks = Checks(min_rows=90, min_rows_per_label=10, min_label_share=0.1)
    report = judge(rows, labels=("a", "b", "c"), checks=checks)
    assert report["ok"] is False
    assert report["expectations"]["passed"] == 4
    assert [one["column"] for one in report["expectations"]["failed"]] == ["rows", "share", "train_rows"]
    few, share, trained = report["problems"]
    assert few == "Expected at least 90 accepted rows (rows), found 84."
    assert share.startswith("Expected every label on at least 10.0% of the accepted rows (share), found")
    assert '"label": "c"' in share
    assert '"share": 0.047619' in share
    assert '"label": "c"' in trained
    assert json.loads(canonical_json(report)) == report


def test_a_label_without_rows_is_a_refusal(judge):
    report = judge(examples(100), labels=("a", "b", "never"))
    assert [one["column"] for one in report["expectations"]["failed"]] == ["train_rows"]
    assert report["labels"]["train"]["never"] == 0


def test_leaks_are_dropped_reported_and_kept_for_a_look(judge, store, tmp_path):
    rows = [row | {"split": ["train", "dev", "test"][place % 3], "note": "x"} for place, row in enumerate(examples(30))]
    report = judge([*rows, {"text": "TEXT 2", "label": "a", "split": "train", "note": "leak"}], split="split")
    assert report["rows"] == {"read": 31, "accepted": 30, "quarantined": 0, "leaks_dropped": 1, "duplicates": 0}
    assert report["splits"] == {"train": 10, "validation": 10, "test": 10}
    leaks = pd.read_parquet(load_tree(store, report["tree"], tmp_path / "cache") / "leaks.parquet")
    assert leaks[["text", "source_row", "reasons"]].to_numpy().tolist() == [
        ["TEXT 2", 30, "the text also occurs in the test split"]
    ]


PERSONAL = "Write to jo@example.com or +49 30 1234567"
GERMAN = "Wo bleibt meine Rückerstattung, ich warte schon seit drei Wochen darauf"


def test_checks_that_are_asked_for_quarantine_rows_with_what_to_do(judge, store, tmp_path):
    bad = [{"text": text, "label": "a"} for text in (PERSONAL, GERMAN, "caf\u00c3\u00a9")]
    checks = {"personal_data": "quarantine", "languages": ["en"], "encoding_damage": "quarantine"}
    report = judge([*examples(120), *bad], checks=Checks(**checks))
    rows = pd.read_parquet(load_tree(store, report["tree"], tmp_path / "cache") / "quarantine.parquet")
    mend = "remove it at the source, or set data.checks.personal_data = 'mask'"
    assert rows["reasons"].to_list() == [
        f"text holds an e-mail address: {mend}; text holds a phone number: {mend}",
        "text is in a language that is not expected: remove it, or add its language to data.checks.languages ('en')",
        "text has damaged characters: mend it at the source, or name data.encoding",
    ]
    assert rows[["text", "source_row"]].to_numpy().tolist()[0] == [PERSONAL, 120]
    assert report["reasons"]["text holds an e-mail address"] == 1
    assert judge([*examples(120), *bad], name="y.jsonl")["rows"]["quarantined"] == 0
    with pytest.raises(DataError, match="'klingon', which cannot be told apart"):
        judge(examples(120), name="z.jsonl", checks=Checks(languages=("klingon",)))


def test_masked_texts_are_all_that_later_stages_see(judge, store, tmp_path):
    rows = [{"text": f"{PERSONAL}, number {number}", "label": "ab"[number % 2]} for number in range(120)]
    report = judge(rows, checks=Checks(personal_data="mask"))
    assert report["masked"] == {"email": 120, "phone": 120}
    assert report["ok"] and report["rows"]["accepted"] == 120
    for tree in [report["tree"], *report["split_trees"].values()]:
        for path in load_tree(store, tree, tmp_path / "cache").rglob("*"):
            assert path.is_dir() or b"example.com" not in path.read_bytes()
    kept = load_split(store, report["tree"], "test", tmp_path / "cache")["text"]
    assert all(text.startswith("Write to <email> or <phone>, number ") for text in kept)
    assert "masked" not in judge(examples(100), name="y.jsonl")


def test_near_duplicates_of_held_out_texts_are_leaks(judge, store, tmp_path):
    plain = [{"text": f"{number} " + "one two three four five " * 4, "label": "ab"[number % 2]} for number in range(90)]
    long = [{**row, "text": " ".join(f"{row['text'].split()[0]}{word}" for word in range(30))} for row in plain]
    rows = [{**row, "split": ["train", "dev", "test"][place % 3]} for place, row in enumerate(long)]
    rows += [{**rows[2], "text": rows[2]["text"] + " too", "split": "train"}]
    rows += [{**rows[0], "text": rows[0]["text"] + " too", "split": "train"}]
    plainly, report = judge(rows, split="split"), judge(rows, split="split", checks=Checks(near_duplicates=0.9))
    assert plainly["rows"]["leaks_dropped"] == 0 and "near_duplicates" not in plainly["rows"]
    found = report["rows"]
    assert (found["leaks_dropped"], found["near_leaks_dropped"], found["near_duplicates"]) == (1, 1, 1)
    assert found["accepted"] == 91 and report["splits"] == {"train": 31, "validation": 30, "test": 30}
    leaks = pd.read_parquet(load_tree(store, report["tree"], tmp_path / "cache") / "leaks.parquet")
    assert leaks[["source_row", "reasons"]].to_numpy().tolist() == [[90, "the text is nearly one of the test split"]]
    assert report["split_digests"]["test"] == plainly["split_digests"]["test"]


def test_every_value_of_a_slice_needs_test_rows(judge):
    rows = [{**row, "land": "de" if number % 50 else "fr"} for number, row in enumerate(examples(400))]
    checks = Checks(min_rows_per_slice=10)
    report = judge(rows, slices=("land",), checks=checks)
    assert report["ok"] is False
    assert report["problems"][0].startswith(
        "Expected at least 10 test rows for every value of a slice (test_rows), found"
    )
    assert "land=fr" in report["problems"][0] and "land=de" not in report["problems"][0]
    assert judge(rows, slices=("land",), checks=Checks(min_rows_per_slice=1), cache="other")["ok"]


def test_options_that_need_another_are_refused_without_it(make_data):
    with pytest.raises(ValueError, match=r"min_rows_per_slice needs data\.slices"):
        make_data(checks=Checks(min_rows_per_slice=3))
    with pytest.raises(ValueError, match="phone_region belongs to personal_data"):
        Checks(phone_region="DE")


def test_what_is_not_asked_for_is_not_in_the_digest():
    assert sorted(Checks().model_dump()) == [
        "max_chars", "max_quarantined", "min_chars", "min_label_share", "min_rows", "min_rows_per_label"
    ]  # fmt: skip
    asked = Checks(languages=("en",), personal_data="mask", near_duplicates=0.8).model_dump(mode="json")
    assert asked["languages"] == ["en"] and asked["personal_data"] == "mask" and asked["near_duplicates"] == 0.8
    assert Checks.model_validate(asked) == Checks(languages=("en",), personal_data="mask", near_duplicates=0.8)


def test_a_quarantine_of_mixed_values_can_be_written(tmp_path):
    values = [{"k": [1]}, "text", None, float("nan"), 2**70, 1.5]
    path = tmp_path / "x.parquet"
    write_rows(pd.DataFrame({"mixed": values, "empty": [{}] * 6, "ints": [1, 2, None, 4, 5, 6]}, dtype=object), path)
    found = pd.read_parquet(path)
    assert found["mixed"].fillna("null").to_list() == ['{"k": [1]}', "text", "null", "null", str(2**70), "1.5"]
    assert found["empty"].to_list() == ["{}"] * 6
    assert found["ints"].isna().sum() == 1


@pytest.mark.parametrize(
    ("name", "text", "changes", "message"),
    [
        ("x.csv", "text,label\n", {}, "hold no rows"),
        ("x.csv", "", {}, "hold no rows"),
        ("x.jsonl", "nonsense\n" * 3, {}, r"No row of 'x.jsonl' keeps the contract.*not valid JSON \(3\)"),
        ("x.csv", "text,label\n" + "".join(f"t{n},a\n" for n in range(99)), {}, "one label alone, 'a'.*'a', 'b'"),
        ("x.csv", "text,label\nx,a\ny,b\n", {"test_fraction": 0}, "No rows are left for 'test', 'validation'"),
        ("x.csv", "text,tag\nx,a\n", {}, "'x.csv' has no column 'label'"),
    ],
)
def test_data_that_nothing_can_be_learnt_from_are_an_error(
    store, tmp_path, make_data, name, text, changes, message, monkeypatch
):
    monkeypatch.setattr("pipelines.data.validate.check_set", lambda *_: pytest.fail("judged in vain"))
    (tmp_path / name).write_text(text)
    data = make_data(name, **changes)
    with pytest.raises(DataError, match=message):
        validate(store, snapshot(store, data, tmp_path).digest, data, tmp_path / "cache")


def test_many_kinds_of_fault_are_summed_up(store, tmp_path, make_data):
    lines = [
        {"text": None, "label": "a"},
        {"text": 1, "label": "b"},
        {"text": "", "label": None},
        {"text": "x", "label": "q"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join([*map(json.dumps, lines), "bad", "[]"]))
    data = make_data()
    with pytest.raises(DataError, match=r"6 rows were quarantined: .*, and 2 other kinds"):
        validate(store, snapshot(store, data, tmp_path).digest, data, tmp_path / "cache")


def test_a_split_that_does_not_exist(store, tmp_path):
    with pytest.raises(DataError, match=r"no split 'dev'.*'test', 'train', 'validation'"):
        load_split(store, "0" * 64, "dev", tmp_path)
    with pytest.raises(NotInStore):
        load_split(store, "0" * 64, "test", tmp_path)


def test_the_stage_is_named():
    assert STAGE.key({}).startswith("memo/validate/")


# Targets.


def test_targets_are_checked_and_all_references_of_a_text_are_on_one_side(judge, store, tmp_path):
    rows = [{"text": f"Text {n // 3}", "reply": f"reply {n}"} for n in range(600)]
    rows[5]["text"] = " text 1"  # another spelling of the same input
    bad = [{"text": "Text 900", "reply": value} for value in (None, "  ", 7)]
    report = judge([*rows, *bad, rows[0]], target="reply", labels=(), checks=Checks(min_rows=1))
    assert report["ok"] and report["rows"]["accepted"] == 601 and report["rows"]["duplicates"] == 1
    reasons = {"reply is null": 1, "reply is empty": 1, "reply is not a string": 1}
    assert report["reasons"] == reasons and report["labels"] == {side: {} for side in report["splits"]}
    side_of = {}
    for side in ("train", "validation", "test"):
        examples = load_split(store, report["tree"], side, tmp_path / "cache")
        assert list(examples) == ["id", "text", "target"] and len(examples) == report["splits"][side] > 0
        for text in examples["text"]:
            assert side_of.setdefault(text.strip().lower(), side) == side
    assert len(side_of) == 200
