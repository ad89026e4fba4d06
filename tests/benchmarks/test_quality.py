"""The quality benchmark's tables: scores, intervals and the choice by validation, from results as they are kept."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.evaluation import metrics
from pipelines.evaluation.scores import Scores
from pipelines.recipe import changed

FOLDER = Path(__file__).parents[2] / "benchmarks" / "quality"


@pytest.fixture(scope="module")
def quality() -> Iterator[Any]:
    """The benchmark: its settings and its tables, as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("cells", "tables", "page")})


def keep(folder: Path, method: str, seed: int, validation: float, wrong: int, params: int = 10) -> None:
    """A kept run of 100 test rows, so many of them answered wrongly."""
    truth = [0, 1] * 50
    answers = [1 - label for label in truth[:wrong]] + truth[wrong:]
    run = {"cell": "subj-minilm", "method": method, "seed": seed, "settings": {}, "validation_accuracy": validation,
           "trainable_params": params, "processor_seconds": 1.0, "truth": truth, "answers": answers}  # fmt: skip
    (folder / f"run-subj-minilm-{method}-{seed}.json").write_text(json.dumps(run))


def reported(quality: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The rows of subj on minilm by method, and all that was printed before the last line."""
    quality.tables.report(folder)
    *printed, last = capsys.readouterr().out.splitlines()
    rows = [row for row in json.loads(last)["cells"] if (row["set"], row["base"]) == ("subj", "minilm")]
    return {row["method"]: row for row in rows}, "\n".join(printed)


def test_the_preset_is_chosen_by_validation_and_not_by_the_test(
    quality: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (17, 18):
        keep(tmp_path, "p-tuning-v2", seed, validation=0.9, wrong=10)
        keep(tmp_path, "residual", seed, validation=0.8, wrong=0)
        keep(tmp_path, "full", seed, validation=0.99, wrong=seed - 9, params=2000)
    keep(tmp_path, "late", 17, validation=0.9, wrong=0, params=11)
    cells, printed = reported(quality, tmp_path, capsys)
    assert [method for method, row in cells.items() if row["chosen"]] == ["p-tuning-v2"], (
        "of two equal ones the smaller"
    )
    assert cells["p-tuning-v2"]["score"] == 0.9 and cells["residual"]["low"] == 1.0
    assert cells["full"]["score"] == 0.915 and cells["full"]["seeds"] == 2
    assert 0.83 < cells["p-tuning-v2"]["low"] < 0.87 and 0.93 < cells["p-tuning-v2"]["high"] < 0.97
    asked = "(asked: 98) and trains 0.50 % of its parameters (asked: under 1)"
    assert f"  Reached: p-tuning-v2 has 98.4 % of full fine-tuning's score {asked}; runs of 14" in printed
    assert "Finished: 0 of 6 cells" in printed and "parameters in 1 of them" in printed.replace("\n", " ")


def test_the_test_split_is_out_of_reach_of_the_choice(quality: Any, tmp_path: Path) -> None:
    keep(tmp_path, "residual", 17, validation=0.8, wrong=0)
    (read,) = quality.tables.trainings("subj-minilm", "residual", tmp_path)
    assert read.keys() == {"cell", "method", "seed", "settings", "validation_accuracy", "trainable_params",
                           "processor_seconds"}  # fmt: skip


def test_a_prompt_too_large_or_too_far_behind_is_not_near(
    quality: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "residual", 17, validation=0.9, wrong=3, params=10)
    for wrong, params in ((0, 10_000), (2, 1000)):
        keep(tmp_path, "full", 17, validation=0.9, wrong=wrong, params=params)
        cells, printed = reported(quality, tmp_path, capsys)
        assert cells["residual"]["chosen"] and "  Not reached: residual has 9" in printed
    keep(tmp_path, "full", 17, validation=0.9, wrong=2, params=1001)
    assert "  Reached: residual has 99.0 %" in reported(quality, tmp_path, capsys)[1]


def test_what_is_missing_is_said_and_has_no_score(
    quality: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, method in enumerate(quality.cells.PRESETS):
        board = [{"validation_accuracy": 0.9 - place / 100}]
        (tmp_path / f"search-subj-minilm-{method}.json").write_text(json.dumps({"leaderboard": board}))
    assert quality.tables.finalists("subj-minilm", tmp_path) == list(quality.cells.PRESETS[:4])
    keep(tmp_path, "p-tuning", 18, validation=0.9, wrong=3)
    cells, printed = reported(quality, tmp_path, capsys)
    assert cells["zero_shot"]["status"] == "not applicable: this base has no language-model head"
    assert cells["prompt-tuning"]["status"] == "missing: searched, not run yet: 90.0 on validation in the search"
    assert cells["p-tuning"]["status"] == "missing: 1 of 3 seeds" and cells["p-tuning"]["score"] == 0.97
    assert cells["iapt"]["status"] == "not among the best 4: 81.0 on validation in the search"
    assert cells["full"]["status"] == "missing: not searched yet" and cells["full"]["score"] is None
    assert "Not decided: runs of 8 methods are missing." in printed
    assert all(f"  {method}" in printed for method in quality.cells.METHODS)


def test_the_committed_results_are_told(quality: Any, capsys: pytest.CaptureFixture[str]) -> None:
    quality.tables.report()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"set", "base", "method", "chosen", "score", "low", "high", "trainable_params", "seconds", "seeds"}
    assert len(last["cells"]) == 6 * len(quality.cells.METHODS) and all(keys <= row.keys() for row in last["cells"])
    known = {f"{row['set']}-{row['base']}-{row['method']}" for row in last["cells"]}
    for path in quality.tables.RESULTS.glob("search-*.json"):
        assert path.stem.removeprefix("search-") in known, path


def test_the_guides_figures_are_made_of_the_results(quality: Any, tmp_path: Path) -> None:
    board = {"leaderboard": [{"validation_accuracy": 0.875}]}
    (tmp_path / "search-subj-minilm-late.json").write_text(json.dumps(board))
    keep(tmp_path, "late", 17, validation=0.9, wrong=3)
    page = tmp_path / "page.md"
    words = quality.page.PAGE.read_text()
    assert words.count(quality.page.BEGIN) == words.count(quality.page.END) == 1
    page.write_text(words)
    for _ in range(2):  # and again: nothing of the last time is left
        quality.page.write_page(page, tmp_path)
        told = page.read_text()
        row = (
            r"\| subj on minilm \| `late` 97\.0 \(9\d\.0 to [19]\d+\.0\) \| none \| - \| - \| - \| - \| not finished \|"
        )
        assert len(re.findall(row, told)) == 1
        assert "| `late` | - | - | 87.5 | - | - | - |" in told and told.count("| `late` | -") == 1
        assert told.partition(quality.page.BEGIN)[0] == words.partition(quality.page.BEGIN)[0]


def test_macro_f1_of_one_seed_is_the_gates_own(quality: Any) -> None:
    rng = np.random.default_rng(3)
    truth, answers = rng.integers(3, size=200), rng.integers(3, size=200)
    probability = np.full(200, 0.5, np.float32)
    scores = Scores(tuple(map(str, range(200))), truth.astype(np.int32), answers.astype(np.int32), probability)
    assert quality.tables.macro_f1(truth, answers[None]) == pytest.approx(metrics.macro_f1(scores))


def test_every_method_has_four_settings_that_its_recipe_allows(quality: Any) -> None:
    recipe = quality.cells.recipe_for("subj", "minilm", Path("table.parquet"), quality.cells.SEARCH_ROWS)
    for method in quality.cells.GRID:
        tried = list(quality.cells.sweep_of(method, "subj").combinations())
        assert len(tried) == 4, method
        for of, change in tried:
            changed(recipe, of, change)
    assert all(len(settings) == 4 for settings in quality.cells.WORDS.values())
    assert {*quality.cells.METHODS} == {*quality.cells.GRID, "zero_shot"}
