"""A family as its flow judges it: the recipes that name it, the records of their runs, and the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.errors import LedgerConflict, RecipeError
from pipelines.promotion import ledger
from pipelines.runs import finish
from pipelines.store.opening import the_ledger, the_store
from tasks.registering import judge_family, promote_version

RECIPE = """
name = "NAME"
base = { name = "none", sources = ["file://none"] }
data = { path = "talk.csv", labels = ["apples", "boats"] }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
baselines = { lora = { rate = 1e-2 } }
gates = { non_inferior = [{ to = "lora", margin = 5.0 }] }
promotion = { policy = "family", family = "nightly" }
"""


@pytest.fixture
def nightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes of a family and one of none; version 1 of `apples` has passed."""
    for name in ("apples", "boats", "cars"):
        text = RECIPE.replace("NAME", name)
        (tmp_path / f"{name}.toml").write_text(text.partition("promotion")[0] if name == "cars" else text)
    monkeypatch.setenv("PROMPTMINT_RECIPES", str(tmp_path))
    ran(1, 1e-4)


def ran(version: int, p_value: float) -> None:
    run = f"{version:064x}"
    finish(the_store(), {"recipe": "apples", "run_key": run, "gates": [{"claim_p_value": p_value}]})
    ledger.register(
        the_ledger(), "apples", version, prompt_digest="b" * 64, verdict="passed", run_key=run, who="flow", why=""
    )


def test_the_family_is_found_and_judged_as_plain_json(nightly: None) -> None:
    found = judge_family.fn("nightly")
    assert [(each["name"], each["version"], each["promoted"]) for each in found["members"]] == [
        ("apples", 1, True), ("boats", None, False)
    ]  # fmt: skip
    assert json.loads(json.dumps(found))["control"] == "fdr"
    with pytest.raises(RecipeError, match="Families of the known recipes: 'nightly'"):
        judge_family.fn("weekly")


def test_a_champion_that_changed_since_is_not_replaced(nightly: None) -> None:
    """Version 2 was compared with nobody; meanwhile somebody crowned version 1."""
    ran(2, 1e-4)
    (waiting, _) = judge_family.fn("nightly")["members"]
    assert waiting["version"] == 2
    ledger.promote(the_ledger(), "apples", 1, who="ann", why="at once")
    with pytest.raises(LedgerConflict, match="'ann' wrote entry 3 of 'apples' first"):
        promote_version.fn("apples", 2, "promptmint", waiting["why"], expected=waiting["sequence"])
