"""The quality benchmark's tables: scores, intervals and the choice by validation, from results as they are kept."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.evaluation import metrics
from pipelines.evaluation.scores import Scores
from pipelines.recipe import changed

FOLDER = Path(__file__).parents[2] / "benchmarks" / "quality"


@pytest.fixture(scope="module")
def quality() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("run")


def keep(folder: Path, method: str, seed: int, validation: float, wrong: int) -> None:
    """A kept run of 100 test rows, so many of them answered wrongly."""
    truth = [0, 1] * 50
    answers = [1 - label for label in truth[:wrong]] + truth[wrong:]
    run = {"cell": "subj-minilm", "method": method, "seed": seed, "settings": {}, "validation_accuracy": validation,
           "trainable_params": 10, "processor_seconds": 1.0, "truth": truth, "answers": answers}  # fmt: skip
    (folder / f"run-subj-minilm-{method}-{seed}.json").write_text(json.dumps(run))


def test_the_preset_is_chosen_by_validation_and_not_by_the_test(
    quality: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    for seed in (17, 18):
        keep(tmp_path, "p-tuning-v2", seed, validation=0.9, wrong=10)
        keep(tmp_path, "residual", seed, validation=0.8, wrong=0)
        keep(tmp_path, "full", seed, validation=0.99, wrong=seed - 9)
    quality.report()
    cells = {row["method"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]}
    assert {method: row["chosen"] for method, row in cells.items()} == {
        "p-tuning-v2": True, "residual": False, "full": False,
    }  # fmt: skip
    assert cells["p-tuning-v2"]["score"] == 0.9 and cells["residual"]["low"] == 1.0
    assert cells["full"]["score"] == 0.915 and cells["full"]["seeds"] == 2
    assert 0.83 < cells["p-tuning-v2"]["low"] < 0.87 and 0.93 < cells["p-tuning-v2"]["high"] < 0.97
    assert quality.enough(list(cells.values()), "subj", "minilm")  # 90.0 of 91.5


def test_macro_f1_of_one_seed_is_the_gates_own(quality: Any) -> None:
    rng = np.random.default_rng(3)
    truth, answers = rng.integers(3, size=200), rng.integers(3, size=200)
    probability = np.full(200, 0.5, np.float32)
    scores = Scores(tuple(map(str, range(200))), truth.astype(np.int32), answers.astype(np.int32), probability)
    assert quality.macro_f1(truth, answers[None]) == pytest.approx(metrics.macro_f1(scores))


def test_every_method_has_four_settings_that_its_recipe_allows(quality: Any) -> None:
    recipe = quality.recipe_for("subj", "minilm", Path("table.parquet"))
    for method in quality.GRID:
        tried = list(quality.sweep_of(method, "subj").combinations())
        assert len(tried) == 4, method
        for of, change in tried:
            changed(recipe, of, change)
