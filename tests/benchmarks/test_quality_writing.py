"""The generation cell's table: BLEU over seeds, and the choice by validation loss, from results as they are kept."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation.texts import bleu_counts, bleu_of
from pipelines.recipe import Recipe, changed

FOLDER = Path(__file__).parents[2] / "benchmarks" / "quality"
TEXT = "the eagle is a cheap riverside pub"


@pytest.fixture(scope="module")
def writing() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("writing")


def test_the_preset_is_chosen_by_its_loss_and_scored_by_its_corpus(
    writing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "RESULTS", tmp_path)
    right, half = bleu_counts(TEXT, [TEXT]), bleu_counts("the eagle is a blue riverside pub", [TEXT])
    kept = {"p-tuning-v2": (1.0, half), "residual": (2.0, right), "full": (0.5, right), "zero_shot": (None, half)}
    for method, (loss, counts) in kept.items():
        for seed in (17, 18):
            run = {"method": method, "validation_loss": loss, "bleu": [counts] * 5, "trainable_params": 7, "seconds": 1}
            (tmp_path / f"run-{writing.CELL}-{method}-{seed}.json").write_text(json.dumps(run))
    writing.report()
    cells = {row["method"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]}
    assert [method for method, row in cells.items() if row["chosen"]] == ["p-tuning-v2"]
    assert cells["full"]["score"] == 1.0 and cells["full"]["seeds"] == 2
    assert cells["p-tuning-v2"]["score"] == round(bleu_of(half), 4) == cells["zero_shot"]["low"] < 1


def test_every_method_has_four_settings_that_the_recipe_allows(writing: Any) -> None:
    recipe = writing.recipe_for(Path("table.parquet"))
    Recipe.model_validate(recipe.model_dump())
    assert recipe.folder.name == "recipes" and not {"late", "dept", "iapt", "head_only"} & set(writing.METHODS)
    for method in writing.METHODS:
        tried = list(writing.sweep_of(method).combinations())
        assert len(tried) == 4, method
        for of, change in tried:
            changed(recipe, of, change)
