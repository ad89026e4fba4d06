from __future__ import annotations

import io
from copy import deepcopy
from typing import Any

import pytest

from pipelines.evaluation.floor import floor_line
from pipelines.evaluation.lengths import cut_lines
from pipelines.evaluation.power import foresee
from pipelines.evaluation.report import (
    COLUMNS,
    METHODS,
    _magnitude,
    comparison_rows,
    gate_rows,
    markdown,
    plot,
    power_lines,
    summary_rows,
)
from pipelines.recipe import Gates, NonInferiority

RECORD: dict[str, Any] = {
    "recipe": "tickets",
    "run_key": "a" * 64,
    "verdict": "refused",
    "reason": "refused: 6.1 points behind full fine-tuning",
    "version": 3,
    "prompt_digest": "b" * 64,
    "base_digest": "c" * 64,
    "data_digest": "d" * 64,
    "scores": {
        "full": {
            "accuracy": 0.894,
            "low": 0.875,
            "high": 0.912,
            "trainable_params": 22_000_000,
            "artifact_bytes": 90_000_000,
            "train_seconds": 1301.26,
        },
        "prompt": {
            "accuracy": 0.833,
            "low": 0.81,
            "high": 0.852,
            "trainable_params": 7712,
            "artifact_bytes": 31_200,
            "train_seconds": 81.2,
        },
        "zero_shot": {"accuracy": 0.612, "low": None, "high": None, "trainable_params": None, "artifact_bytes": None},
    },
    "gates": [
        {
            "name": "non-inferior to full",
            "verdict": "refused",
            "estimate": -6.1,
            "low": -7.2,
            "high": -5.2,
            "threshold": -5,
            "reason": "6.1 points behind full fine-tuning",
        },
        {
            "name": "non-inferior to champion",
            "verdict": "passed",
            "estimate": None,
            "low": None,
            "high": None,
            "threshold": None,
            "reason": "there is no champion on these labels yet",
        },
    ],
    "seconds": {"train": 500.25},
    "unchanged": False,
    "data": {
        "rows": {"read": 3000, "accepted": 2958, "quarantined": 40, "leaks_dropped": 2, "duplicates": 0},
        "splits": {"train": 2000, "test": 580},
        "reasons": {"too long | <script>": 20},
        "problems": ["label [x](http://y) unknown\n# heading"],
    },
}
EMPTY: dict[str, Any] = {
    "recipe": "tickets",
    "run_key": "a" * 64,
    "verdict": "refused",
    "reason": "refused: too many rows were set aside.",
    "version": None,
    "prompt_digest": None,
    "base_digest": None,
    "data_digest": "d" * 64,
    "scores": None,
    "gates": None,
    "seconds": None,
    "unchanged": True,
    "data": None,
}


def test_comparisons_are_told_with_mcnemars_p_value() -> None:
    full, champion = RECORD["gates"]
    counted = full | {"lost": 91, "won": 30, "p_value": 2.2e-8}
    ahead = {"name": "superior to head_only", "estimate": 3.04, "low": 0.9, "high": 5.1, "threshold": 1}
    ahead = {**counted, **ahead, "verdict": "inconclusive", "p_value": 0.03125}
    record = RECORD | {"gates": [counted, champion, ahead]}
    assert comparison_rows(record) == [
        ["non-inferior to full", "-6.1", "30", "91", "< 0.0001"],
        ["superior to head_only", "+3.0", "30", "91", "0.0312"],
    ]
    assert "| superior to head\\_only | +3.0 | 30 | 91 | 0.0312 |" in markdown(record)
    assert comparison_rows(RECORD) == [], "records of before have no counts"
    assert plot(record) != plot(RECORD)


def test_calibration_is_told_where_it_was_measured() -> None:
    scores = {**RECORD["scores"], "prompt": RECORD["scores"]["prompt"] | {"ece": 0.0312}}
    page = markdown(RECORD | {"scores": scores})
    assert "| Soft prompt | 3.1 |" in page and page.count("Expected calibration error") == 1
    assert "calibration" not in markdown(RECORD), "records of before have none"


def test_low_power_is_told_unless_the_reason_says_it() -> None:
    power = foresee(Gates(non_inferior=(NonInferiority(to="full", margin=5),)), 100)
    (line,) = power_lines(RECORD | {"power": power})
    assert "non-inferior to full: with 100 test examples" in line
    assert f"## Low power\n\n- {line}" in markdown(RECORD | {"power": power})
    assert power_lines(RECORD | {"power": power, "reason": f"refused: too small: {line}"}) == []
    assert power_lines(RECORD) == [] and "Low power" not in markdown(RECORD)


def test_one_row_per_scored_method_the_prompt_first() -> None:
    rows = summary_rows(RECORD)
    assert rows[0] == ["Soft prompt", "83.3", "81.0", "85.2", "7,712", "31,200", "81.2"]
    assert rows[1] == ["Full fine-tuning", "89.4", "87.5", "91.2", "22,000,000", "90,000,000", "1,301.3"]
    assert rows[2] == ["Zero-shot", "61.2", "-", "-", "-", "-", "-"]
    assert {len(row) for row in rows} == {len(COLUMNS)}


@pytest.mark.parametrize("missing", [None, {}, {"prompt": None}])
def test_a_run_without_scores_has_no_rows(missing: object) -> None:
    assert summary_rows({**RECORD, "scores": missing}) == []
    assert gate_rows(EMPTY) == []


def test_the_page_tells_the_whole_run() -> None:
    page = markdown(RECORD)
    assert page.startswith("# tickets, version 3: refused\n\nRefused: 6.1 points behind full fine-tuning.\n")
    assert "| Soft prompt | 83.3 | 81.0 | 85.2 | 7,712 | 31,200 | 81.2 |" in page
    assert "| non-inferior to champion | passed | there is no champion on these labels yet |" in page
    assert "3,000 rows arrived: 40 in quarantine, 2 dropped as leaks; used: 2,000 train, 580 test." in page
    assert "| train | 500.2 |" in page
    assert "- Prompt: `bbbbbbbbbbbb`" in page
    assert "unchanged" not in page.lower() and "Nothing has changed" not in page


def test_texts_and_targets_that_lost_their_end_are_told() -> None:
    settings = {"template": {"max_tokens": 64}, "head": {"max_new_tokens": 12}}
    whole, short = {"rows": 2000, "truncated": 0, "targets_cut": 0}, {"rows": 2000, "truncated": 1200, "targets_cut": 3}
    assert cut_lines(RECORD) == cut_lines({"settings": settings, "tokens": {"train": whole}}) == []
    cut = {**RECORD, "settings": settings, "tokens": {"train": short, "test": whole}}
    said = [
        "train: 1,200 of 2,000 texts lost their end, being longer than template.max_tokens = 64",
        "train: 3 of 2,000 targets lost their end, being longer than head.max_new_tokens = 12",
    ]
    assert cut_lines(cut) == said
    page = markdown(cut).replace("\\", "")
    assert all(f"- {line}" in page for line in said)


def test_a_prompt_that_is_no_better_than_one_answer_for_everything_is_told() -> None:
    assert floor_line(RECORD) == floor_line(RECORD | {"commonest": {"label": "other", "share": 0.8}}) == ""
    poor = RECORD | {"commonest": {"label": "other", "share": 0.82}}  # the prompt's interval begins at 81.0 %
    told = "answering 'other' to everything would be right on 82.0 % of the test examples; the prompt, at 83.3 %"
    assert floor_line(poor).startswith(told)
    assert told[1:] in markdown(poor)


def test_every_table_is_whole() -> None:
    tables = [line for line in markdown(RECORD).splitlines() if line.startswith("|")]
    widths = [line.replace("\\|", "").count("|") for line in tables]
    assert widths == [8] * 5 + [4] * 4 + [3] * 3 + [3] * 3


def test_text_from_the_data_cannot_change_the_page() -> None:
    page = markdown(RECORD)
    assert "<script>" not in page
    assert "too long \\| &lt;script&gt;" in page
    assert "- label \\[x\\](http://y) unknown # heading\n" in page


def test_a_run_that_ended_early_is_told_too() -> None:
    page = markdown(EMPTY)
    assert page.startswith("# tickets: refused\n\nRefused: too many rows were set aside.\n")
    assert "Nothing has changed" in page and "Nothing was scored." in page
    assert "- Prompt: none" in page
    assert "|" not in page and "None" not in page


def crowded() -> dict[str, Any]:
    """Every method, the champion as large as the prompt."""
    record = deepcopy(RECORD)
    record["scores"] = {key: record["scores"]["prompt"] | {"accuracy": 0.82} for key in METHODS}
    return record


@pytest.mark.parametrize("record", [RECORD, EMPTY, crowded(), {**RECORD, "gates": [], "verdict": "passed"}])
def test_the_picture_is_a_png_of_the_promised_size(record: dict[str, Any]) -> None:
    from matplotlib.image import imread

    picture = plot(record)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert imread(io.BytesIO(picture)).shape == (480, 1200, 4)
    assert plot(record) == picture
    if record is not EMPTY:
        assert plot(EMPTY) != picture


@pytest.mark.parametrize(("power", "says"), [(0, "1"), (2, "100"), (3, "1 k"), (7, "10 M"), (15, "1e15")])
def test_powers_of_ten_as_people_say_them(power: int, says: str) -> None:
    assert _magnitude(power) == says
