"""The page of a run: what a reader reads on it is what the record says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.bases.pin import PinnedBase
from pipelines.evaluation.pages.evidence import gather
from pipelines.evaluation.pages.run import run_page
from pipelines.store.local import LocalStore

Read = Callable[[str], Any]

BASE = PinnedBase("stranger/tiny-bert", "c" * 64, {"config.json": "0" * 64}, "file://base", 90_000_000, {})


@pytest.fixture
def page(store: LocalStore, record: dict[str, Any], read: Read) -> Any:
    return read(run_page(record, gather(store, record), BASE))


def test_the_verdict_comes_first_with_its_reasons(page: Any, record: dict[str, Any]) -> None:
    assert page.text.startswith("orchard version 3: refused orchard version 3 refused")
    (budget,) = [gate for gate in record["gates"] if gate["verdict"] == "refused"]
    told = "2026-11-21 13:15 UTC, run aaaaaaaaaaaa , challenger when it ended 31,200 artifact bytes of 30,000 allowed."
    assert told in page.text
    assert page.text.index(budget["reason"]) < page.text.index("Non-inferior")


def test_every_gate_stands_there_with_its_reason_and_its_interval(page: Any, record: dict[str, Any]) -> None:
    for title in ("Non-inferior to LoRA passed", "Non-inferior to the champion", "Accuracy of every label passed"):
        assert title in page.text
    for gate in record["gates"]:
        assert gate["reason"].rstrip(".")[1:] in page.text
        if gate["low"] is not None:
            told = f"{gate['estimate']:+.2f} points, from {gate['low']:+.2f} to {gate['high']:+.2f}"
            assert f"{told}; above {gate['threshold']:+g} passes" in page.text
            assert f"Only the prompt is right on {gate['won']}, only the other on {gate['lost']}" in page.text


def test_an_interval_is_drawn_where_its_numbers_are(page: Any, record: dict[str, Any]) -> None:
    """Points of accuracy are a straight line over all gates: what is known of three marks holds for every other."""
    drawn = [gate for gate in record["gates"] if gate["low"] is not None]
    assert len(drawn) == 2
    zero = float(page.of("line", "zero")[0]["x1"].rstrip("%"))
    margin = float(page.of("line", "margin")[0]["x1"].rstrip("%"))
    per_point = (zero - margin) / 5
    for gate in drawn:
        places = {zero + per_point * gate[key] for key in ("low", "high")}
        bars = [float(str(bar["x1"]).rstrip("%")) for bar in page.of("line", "bar") if bar.get("x1") == bar.get("x2")]
        assert all(any(abs(place - bar) < 0.05 for bar in bars) for place in places), gate["name"]


def test_every_method_has_its_figures(page: Any, record: dict[str, Any]) -> None:
    for name, spelt in (("prompt", "Soft prompt"), ("lora", "LoRA"), ("full", "Full fine-tuning")):
        each = record["scores"][name]
        row = f"{spelt} {100 * each['accuracy']:.1f} % {100 * each['low']:.1f} to {100 * each['high']:.1f}"
        row += f" {100 * each['macro_f1']:.1f} % {100 * each['ece']:.1f} % {each['trainable_params']:,}"
        assert row in page.text
    assert "Zero-shot" not in page.text, "a method that was not scored has no row"
    assert "80 s, reused" in page.text
    assert "Trainings of this run: 3 min; 80 s of training came from the store and was not paid again." in page.text


def test_accuracy_is_drawn_against_parameters_and_seconds(page: Any) -> None:
    for name, parameters, seconds in (("Full fine-tuning", "22.6 M", "80.5"), ("Head only", "3.08 k", "13.4")):
        assert re.search(rf"{name}: [\d.]+ %, {parameters} trained parameters", page.text)
        assert re.search(rf"{name}: [\d.]+ %, {seconds} seconds of training", page.text)


def test_what_trains_nothing_stands_at_zero_and_the_champion_is_a_line(record: dict[str, Any], read: Read) -> None:
    zero_shot = {"accuracy": 0.5, "low": None, "high": None, "trainable_params": 0, "train_seconds": 0.0}
    champion = {**record["scores"]["lora"], "trainable_params": 0, "train_seconds": 0.0}
    page = read(run_page({**record, "scores": {**record["scores"], "zero_shot": zero_shot, "champion": champion}}))
    dots = [each["cx"] for each in page.of("circle", "m-zero_shot")][:2]
    for place in dots:
        ticks = re.findall(rf'<text x="{place}" y="[^"]+" class="tick middle">([^<]+)<', page.source)
        assert set(ticks) == {"0"}
    assert len(page.of("line", "reign")) == 2 and not page.of("circle", "m-champion")
    assert "Against the champion -1.0" in page.text
    row = f"Champion {100 * champion['accuracy']:.1f} % {100 * champion['low']:.1f} to {100 * champion['high']:.1f}"
    assert f"{row} {100 * champion['macro_f1']:.1f} % {100 * champion['ece']:.1f} % – – –" in page.text


def test_each_training_has_its_curve_of_all_its_points(page: Any, record: dict[str, Any]) -> None:
    curves = page.of("polyline", "curve")
    losses = [curve for curve in curves if "faint" in str(curve["class"])]
    assert len(losses) == len(record["trained"]) and len(curves) == 2 * len(losses)
    assert all(len(str(curve["points"]).split()) == 40 for curve in losses)
    assert page.text.count("Epoch 2: validation loss 0.550, accuracy 90.0 %, kept") == len(losses)


def test_every_label_has_its_accuracy_and_its_row_of_the_confusion_matrix(page: Any, record: dict[str, Any]) -> None:
    assert page.text.count("89.0 % of 100") == 3
    cells = [cell for cell in page.elements if cell[0] == "td" and "--shade" in str(cell[1].get("style"))]
    assert len(cells) == 9
    assert [cell[1]["style"] for cell in cells[:3]] == ["--shade:0.89", "--shade:0.332", "--shade:0.0"]
    for label in record["labels"]:
        assert label in page.text


def test_the_values_of_a_column_are_told_like_labels(record: dict[str, Any], read: Read) -> None:
    told = {
        "de": {"prompt": {"right": 9, "n": 10}, "lora": {"right": 8, "n": 10}},
        "<fr>": {"prompt": {"right": 1, "n": 4}},
    }
    page = read(run_page({**record, "slices": {"country": told}}))
    assert "Slices By country <fr>" not in page.text and "By label" not in page.text
    assert page.text.index("By country") < page.text.index("<fr>") < page.text.index("de Accuracy by method")
    assert "Soft prompt: 9 of 10 right 90.0 % of 10" in page.text and "LoRA: 8 of 10 right" in page.text


def test_the_worst_errors_are_shown_and_escaped(page: Any) -> None:
    assert "text number 0 <script>alert(0)</script> Is apples , answered boats & <b>ships</b> at 99." in page.text
    assert "33 of 300 test examples are answered wrongly; 24 of them are told here." in page.text
    own, shared = page.text.index("Its worst errors"), page.text.index("Where every method is wrong")
    assert own < page.text.index("text number 21 ") < shared < page.text.index("text number 0 ")
    assert not [element for element, _ in page.elements if element in ("script", "boats", "ships")]


def test_texts_can_be_left_out(store: LocalStore, record: dict[str, Any], read: Read) -> None:
    page = read(run_page(record, gather(store, record, texts=False)))
    assert "text number" not in page.source and "alert" not in page.source
    assert "promptmint report orchard@3 --html" in page.text and "Is apples , answered" in page.text


def test_a_sweep_is_told_with_what_was_chosen(record: dict[str, Any], read: Read) -> None:
    row = {
        "method": "prompt",
        "validation_accuracy": 0.9,
        "validation_loss": 0.31,
        "trainable_params": 7,
        "seconds": 2.0,
    }
    board = [{**row, "change": {"tokens": 32}, "chosen": True}, {**row, "change": {"tokens": 8}, "chosen": False}]
    page = read(run_page({**record, "leaderboard": board}))
    assert "Soft prompt tokens 32 90.0 0.310 7 2.0 yes Soft prompt tokens 8 90.0 0.310 7 2.0 no" in page.text
    assert "p-tuning-v2, 32 tokens, seed 17" in page.text


def test_the_data_are_told_with_what_was_set_aside(page: Any) -> None:
    for told in ("rows arrived 3,000", "in quarantine 40", "dropped as leaks 2", "used for training 2,000"):
        assert told in page.text
    assert "too long | <script> 31" in page.text and "12 expectations held, 0 did not" in page.text


def test_the_lineage_goes_down_to_the_base(page: Any) -> None:
    places = [page.text.index(digit * 64) for digit in "bfe2341dc"]
    assert places == sorted(places)
    assert "stranger/tiny-bert, 90 MB in 1 files from file://base" in page.text


def test_it_asks_for_nothing_from_anywhere(page: Any) -> None:
    assert not [name for name, _ in page.elements if name in ("script", "link", "img", "iframe", "object", "audio")]
    asked = [(name, key) for name, a in page.elements for key in a if key in ("src", "srcset", "data", "xlink:href")]
    assert asked == [] and "url(" not in page.source and "@import" not in page.source
    assert all(str(a["href"]).startswith("#") for name, a in page.elements if name == "a")
    (policy,) = [a for name, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_link_within_it_leads_somewhere(page: Any) -> None:
    ids = {a["id"] for _, a in page.elements if a.get("id")}
    assert {str(a["href"])[1:] for name, a in page.elements if name == "a"} == ids


def test_a_run_that_ended_early_is_told_too(record: dict[str, Any], read: Read) -> None:
    known = ("recipe", "run_key", "data", "base_digest", "data_digest", "recipe_digest", "labels")
    early = {key: record[key] for key in known}
    early["data"] |= {"ok": False, "problems": ["40 of 3000 rows were <quarantined>"]}
    page = read(
        run_page(
            {**early, "verdict": "refused", "reason": "refused: 40 rows", "version": None, "scores": {"prompt": None}}
        )
    )
    assert page.text.startswith("orchard: refused orchard refused") and "Refused: 40 rows." in page.text
    assert "40 of 3000 rows were <quarantined>." in page.text
    assert "Gates" not in page.text and "What it gets wrong" not in page.text


def test_texts_that_lost_their_end_are_told(record: dict[str, Any], read: Read) -> None:
    assert "Not read by the base" not in read(run_page(record)).text
    record["settings"]["template"] = {"max_tokens": 64}
    record["tokens"] = {"train": {"rows": 2000, "truncated": 1200, "targets_cut": 0}}
    told = "Train: 1,200 of 2,000 texts lost their end, being longer than template.max_tokens = 64."
    assert f"Not read by the base {told}" in read(run_page(record)).text


def test_a_record_of_before_says_what_it_does_not_know(record: dict[str, Any], read: Read) -> None:
    for key in ("at", "description", "score_digests", "power"):
        del record[key]
    for each in record["scores"].values():
        if each:
            del each["ece"], each["macro_f1"]
    page = read(run_page(record))
    assert "Not known here: this run was recorded by an earlier version" in page.text
    assert "By label" not in page.text


def test_many_labels_are_told_by_pairs(store: LocalStore, record: dict[str, Any], read: Read) -> None:
    record["labels"] = [*record["labels"], *(f"label {number}" for number in range(40))]
    page = read(run_page(record, gather(store, record)))
    assert not page.of("table", "confusion")
    assert "apples answered as boats & <b>ships</b> 11" in page.text
