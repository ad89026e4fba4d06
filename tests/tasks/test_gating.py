"""The verdict as the flow gets it: every kind of gate, judged on scores that lie in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.writing import write_rows
from pipelines.evaluation.report import comparison_rows, gate_rows, markdown, plot, summary_rows
from pipelines.evaluation.scores import save_scores
from pipelines.evaluation.texts import from_texts, save_texts
from pipelines.recipe import load_recipe
from pipelines.store.opening import the_store
from pipelines.store.trees import save_bytes, save_tree
from pipelines.tokens.targets import input_name
from tasks.gating import judge

RECIPE = """
name = "talk"
base = { name = "none", sources = ["file://none"] }
data = { path = "talk.csv", labels = ["apples", "boats"] }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
baselines = { lora = { rate = 1e-2 }, head_only = { rate = 1e-2 } }
[gates]
non_inferior = [{ to = "lora", margin = 5.0 }]
superior = [{ to = "head_only", margin = 2.0 }]
per_label_accuracy = 0.6
max_ece = 0.2
budgets = { artifact_bytes = 100 }
"""


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A prompt that never answers wrongly about apples and mostly about boats, and is always 73 % sure."""
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PROMPTMINT_STORE", raising=False)
    (tmp_path / "talk.toml").write_text(RECIPE)
    label = np.repeat([0, 1], 500)

    def scored(wrong_apples: int, wrong_boats: int) -> str:
        answer = label.copy()
        answer[:wrong_apples] = 1
        answer[500 : 500 + wrong_boats] = 0
        return save_scores(the_store(), [f"{row:04d}" for row in range(1000)], label, np.eye(2)[answer])

    scores = {"prompt": scored(0, 240), "lora": scored(0, 245), "head_only": scored(200, 240)}
    cost = {"trainable_params": 7, "artifact_bytes": 99, "seconds": 1.0}
    found: dict[str, Any] = judge.fn(load_recipe(tmp_path / "talk.toml"), scores, dict.fromkeys(scores, cost), "0" * 64)
    return found


def test_every_kind_of_gate_is_judged(judged: dict[str, Any]) -> None:
    assert [(gate["name"], gate["verdict"]) for gate in judged["gates"]] == [
        ("non-inferior to lora", "passed"),
        ("superior to head_only", "passed"),
        ("accuracy of every label", "refused"),
        ("calibration error", "passed"),
        ("budget of artifact bytes", "passed"),
    ]
    assert judged["verdict"] == "refused" and "'boats', the weakest label" in judged["reason"]
    assert "52.0 % of its 500 test examples" in judged["reason"]


def test_the_table_has_the_calibration_error_and_the_report_every_row(judged: dict[str, Any]) -> None:
    assert judged == json.loads(json.dumps(judged))
    errors = {method: table["ece"] for method, table in judged["scores"].items()}  # all say 73.1 %
    expected = {"prompt": 0.760 - 0.7311, "lora": 0.755 - 0.7311, "head_only": 0.7311 - 0.560}
    assert errors == pytest.approx(expected, abs=1e-4)
    record = {"recipe": "talk", **judged}
    assert [row[0] for row in comparison_rows(record)] == ["non-inferior to lora", "superior to head_only"]
    assert comparison_rows(record)[1][1:4] == ["+20.0", "200", "0"]
    assert len(gate_rows(record)) == 5 and "## Calibration" in markdown(record)


def test_slices_are_counted_by_every_method_and_guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))
    recipe = RECIPE.replace('"boats"] }', '"boats"], slices = ["country"] }').replace(
        "per_label", "per_slice_accuracy = 0.6\nper_label"
    )
    (tmp_path / "talk.toml").write_text(recipe)
    names = [f"{row:04d}" for row in range(200)]
    label = np.repeat([0, 1], 100)
    answer = label.copy()
    answer[:50] = 1
    rows = pd.DataFrame({"id": names, "split": "test", "slice:country": ["de"] * 60 + ["fr"] * 140})
    (tmp_path / "report").mkdir()
    write_rows(rows, tmp_path / "report" / "accepted.parquet")
    tree = save_tree(the_store(), tmp_path / "report")
    digest = save_scores(the_store(), names, label, np.eye(2)[answer])
    cost = {"trainable_params": 7, "artifact_bytes": 99, "seconds": 1.0}
    methods = ("prompt", "lora", "head_only")
    found = judge.fn(
        load_recipe(tmp_path / "talk.toml"), dict.fromkeys(methods, digest), dict.fromkeys(methods, cost), tree
    )
    assert found["slices"].keys() == {"country"}
    assert found["slices"]["country"]["de"] == {method: {"right": 10, "n": 60} for method in methods}
    assert found["slices"]["country"]["fr"] == {method: {"right": 140, "n": 140} for method in methods}
    (gate,) = [gate for gate in found["gates"] if gate["name"] == "accuracy of every country"]
    assert gate["verdict"] == "refused" and "'de', the weakest country" in gate["reason"]
    assert found == json.loads(json.dumps(found))


def test_the_champion_is_compared_on_what_it_has_not_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By heart it knows the first 400 of 1,000, where the prompt errs; on the others both are equally good."""
    monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))
    recipe = "\n".join(RECIPE.splitlines()[:5]) + '\ngates = { non_inferior = [{ to = "champion", margin = 5.0 }] }\n'
    (tmp_path / "talk.toml").write_text(recipe)
    names, label = [f"{row:04d}" for row in range(1000)], np.repeat([0, 1], 500)
    answer = label.copy()
    answer[:100] = 1
    scores = {
        "prompt": save_scores(the_store(), names, label, np.eye(2)[answer]),
        "champion": save_scores(the_store(), names, label, np.eye(2)[label]),
    }
    cost = {"prompt": {"trainable_params": 7, "artifact_bytes": 99, "seconds": 1.0}}
    asked = (load_recipe(tmp_path / "talk.toml"), scores, cost, "0" * 64, "")
    seen = save_bytes(the_store(), json.dumps(names[:400]).encode())
    fair, unfair = judge.fn(*asked, seen=seen), judge.fn(*asked)
    assert (fair["verdict"], unfair["verdict"]) == ("passed", "refused")
    assert fair["gates"][0]["estimate"] == 0.0
    assert (fair["scores"]["champion"]["n"], fair["scores"]["prompt"]["n"]) == (600, 1000)


WRITES = """
name = "replies"
base = { name = "none", sources = ["file://none"] }
data = { path = "talk.csv", target = "reply" }
head = { kind = "generation", max_new_tokens = 9 }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
baselines = { lora = { rate = 1e-2 } }
[gates]
metric = "token_f1"
resamples = 1000
non_inferior = [{ to = "lora", margin = 5.0 }, { to = "champion", margin = 5.0 }]
"""


def test_texts_are_judged_and_a_champion_not_on_inputs_that_it_has_seen(tmp_path: Path) -> None:
    (tmp_path / "replies.toml").write_text(WRITES)
    rows = pd.DataFrame({"id": [f"{n:04d}" for n in range(400)], "text": [f"text {n // 2}" for n in range(400)],
                         "target": [f"reply {n}" for n in range(400)], "split": "test"})  # fmt: skip
    (tmp_path / "report").mkdir()
    write_rows(rows, tmp_path / "report" / "accepted.parquet")
    store, inputs = the_store(), {input_name(f"text {n}"): [f"reply {2 * n}", f"reply {2 * n + 1}"] for n in range(200)}

    def scored(wrong: int) -> str:
        said = ["" if place < wrong else right[1] for place, right in enumerate(inputs.values())]
        return save_texts(store, from_texts(inputs, said))

    scores = {"prompt": scored(40), "lora": scored(40), "champion": scored(0)}
    cost = {"trainable_params": 7, "artifact_bytes": 99, "seconds": 1.0}
    seen = save_bytes(store, json.dumps([f"{n:04d}" for n in range(80) if n % 2]).encode())
    recipe, tree = load_recipe(tmp_path / "replies.toml"), save_tree(store, tmp_path / "report")
    told = [judge.fn(recipe, scores, dict.fromkeys(scores, cost), tree, seen=each) for each in (seen, None)]
    verdicts = [{gate["name"]: gate["verdict"] for gate in each["gates"]} for each in told]
    assert [each["non-inferior to lora"] for each in verdicts] == ["passed", "passed"]
    assert [each["non-inferior to champion"] for each in verdicts] == ["passed", "refused"]  # it wrote those 40 alone
    assert told[0]["scores"]["champion"]["n"] == 160 and told[0]["scores"]["prompt"]["token_f1"] == 0.8
    record = {"recipe": "replies", "settings": recipe.model_dump(mode="json"), **told[0]}
    page = markdown(record)
    assert "## Token F1 on the test split" in page and "## All metrics" in page and "Calibration" not in page
    assert summary_rows(record)[0][1] == "80.0" and comparison_rows(record) == [] and plot(record)
