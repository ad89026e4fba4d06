"""New data every week: the baselines' weights are kept, the prompt starts from the champion, and all of it is told.

One story in one workshop, told in order, as in test_main_job.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

MONTH_S = 30 * 24 * 3600
TRAINED = ("lora", "full", "head_only")


@pytest.fixture(scope="module")
def shop(workshop: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = workshop(tmp_path_factory.mktemp("amortised") / "workshop")
    made.edit("[baselines.lora]", "[baselines]\nkeep_days = 30\n\n[baselines.lora]")
    return made


def run(shop: Any) -> dict[str, Any]:
    ended = shop.promptmint("run", "orchard.toml", "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.json
    return found


def deliver(shop: Any, rows: Callable[[int, int], list[tuple[str, str]]], count: int, seed: int) -> None:
    with shop.data.open("a") as file:
        file.writelines(f"{said},{about}\n" for said, about in rows(count, seed))


@pytest.fixture(scope="module")
def first(shop: Any) -> dict[str, Any]:
    return run(shop)


@pytest.fixture(scope="module")
def second(shop: Any, first: dict[str, Any], rows: Any) -> dict[str, Any]:
    """The run after one example in a hundred is new."""
    deliver(shop, rows, 4, 77)
    return run(shop)


def test_the_first_run_trains_all_and_says_what_it_cost(first: dict[str, Any]) -> None:
    assert [first["baselines"][name]["how"] for name in TRAINED] == ["trained"] * 3
    assert first["start"]["why_not"] == "nobody was champion" and first["aliases"]["champion"] == 1
    stages, total = first["cost"]["stages"], first["cost"]["total"]
    assert stages.keys() == first["seconds"].keys() and stages["train"]["processor_seconds"] > 1
    assert total["kwh"] == pytest.approx(12 * total["processor_seconds"] / 3.6e6, rel=0.01)


def test_new_data_train_the_prompt_alone_from_where_the_champion_ended(
    shop: Any, first: dict[str, Any], second: dict[str, Any]
) -> None:
    for name in TRAINED:
        lineage = second["baselines"][name]
        assert (lineage["how"], lineage["run"]) == ("kept", first["run_key"])
        assert lineage["trained_at"] == first["baselines"][name]["trained_at"] and 0 <= lineage["age_days"] < 1
    assert (second["start"]["version"], second["start"]["prompt"]) == (1, first["prompt_digest"])
    assert second["prompt_digest"] != first["prompt_digest"]
    assert shop.promptmint("pull", "orchard@2").code == 0
    card = json.loads((shop.folder / "orchard-v2/prompt.json").read_bytes())
    assert card["start"] == first["prompt_digest"], "the prompt itself says where its training began"
    assert len(list((shop.store / "memo/train").iterdir())) == len(("prompt", *TRAINED)) + 1


def test_equal_data_are_unchanged_and_another_gate_judges_the_same_prompt(shop: Any, second: dict[str, Any]) -> None:
    assert run(shop)["unchanged"]
    shop.edit('{ to = "lora", margin = 40.0 }', '{ to = "lora", margin = 41.0 }')
    judged = run(shop)
    assert not judged["unchanged"] and judged["run_key"] != second["run_key"]
    assert judged["prompt_digest"] == second["prompt_digest"] and judged["start"] == second["start"]
    assert [judged["baselines"][name]["how"] for name in TRAINED] == ["kept"] * 3


def test_a_person_is_told_what_was_reused_and_what_prompts_cost(shop: Any, second: dict[str, Any]) -> None:
    shown = shop.promptmint("run", "orchard.toml").out
    assert "Warm start: from version 1" in shown and "Baseline: LoRA: reused from run" in shown
    spent = shop.promptmint("status", "orchard", "--json").json["spent"]
    assert spent["promoted"]["prompts"] >= 2 and spent["promoted"]["total"]["kwh"] > 0
    assert spent["refused"]["prompts"] == 0
    assert "A promoted prompt cost" in shop.promptmint("status", "orchard").out
    assert "kWh" in shop.promptmint("status").out
    page = shop.folder / "run.html"
    assert shop.promptmint("report", "orchard", "--html", page).code == 0
    assert "reused from run" in page.read_text() and "processor-seconds" in page.read_text()
    fleet = shop.folder / "fleet.html"
    assert shop.promptmint("report", "--fleet", "--html", fleet).code == 0 and "A promoted prompt:" in fleet.read_text()


def test_a_prompt_that_started_warm_is_minted_again_to_the_same_bits(shop: Any, second: dict[str, Any]) -> None:
    again = shop.promptmint("reproduce", f"orchard@{second['version']}", "--json")
    assert again.code == 0 and again.json["equal"], again.out
    assert again.json["prompt_digest"] == second["prompt_digest"]


def test_what_a_later_run_may_keep_is_no_garbage(shop: Any, second: dict[str, Any], rows: Any) -> None:
    long_ago = time.time() - 2 * MONTH_S
    for path in shop.store.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    assert shop.promptmint("gc", "--delete").code == 0
    deliver(shop, rows, 4, 78)
    third = run(shop)
    assert [third["baselines"][name]["how"] for name in TRAINED] == ["kept"] * 3
    assert third["start"]["why_not"] == ""
