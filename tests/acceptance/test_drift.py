"""A stranger's data move: the run is refused before anything is trained, or goes on and says what moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

Rows = Callable[[int, int], list[tuple[str, str]]]

DRIFT = """
[drift]
then = "refuse"
embedded = 100
"""


def test_moved_data_are_refused_and_then_noted(fresh: Any, rows: Rows) -> None:
    fresh.recipe.write_text(fresh.recipe.read_text() + DRIFT)
    first = fresh.promptmint("run", fresh.recipe, "--json").json
    assert first["aliases"]["champion"] == 1
    assert first["drift"]["why_not"].startswith("there is no champion yet")
    assert first["seen_by_champion"] is None

    moved = [(text, label) for text, label in rows(900, 7) if label == "apples"][:330]
    moved += [(text, label) for text, label in rows(200, 8) if label == "boats"]
    fresh.data.write_text("said,about\n" + "\n".join(f"{text},{label}" for text, label in moved) + "\n")
    refused = fresh.promptmint("run", fresh.recipe, "--json").json
    assert (refused["verdict"], refused["version"]) == ("refused", None)
    assert "the data have moved from those of the champion (version 1): labels moved" in refused["reason"]
    assert refused["drift"]["moved"] == ["labels"] and "train" not in refused["seconds"]
    assert {each["name"] for each in refused["drift"]["measures"]} >= {"labels", "length", "unseen", "embedding"}

    fresh.edit('then = "refuse"', 'then = "note"')
    noted = fresh.promptmint("run", fresh.recipe)
    assert noted.code == 0 and "Drift: labels moved" in noted.out.replace("\n", " ")
    page = fresh.folder / "page.html"
    told = json.loads(fresh.promptmint("report", "orchard", "--html", page, "--json").out)
    assert told["recipe"] == "orchard" and 'id="drift"' in page.read_text()


def test_a_champion_is_not_judged_by_what_it_learnt_from(fresh: Any, rows: Rows) -> None:
    """The data bring their own splits, and move examples from training to test."""
    fresh.edit('label = "about"', 'label = "about"\nsplit = "side"')
    talk = rows(400, 0)

    def deliver(test: range) -> None:
        sides = ["test" if n in test else "validation" if n % 10 == 3 else "train" for n in range(len(talk))]
        lines = [f"{text},{label},{side}" for (text, label), side in zip(talk, sides, strict=True)]
        fresh.data.write_text("said,about,side\n" + "\n".join(lines) + "\n")

    deliver(range(100))
    assert fresh.promptmint("run", fresh.recipe, "--json").json["aliases"]["champion"] == 1
    deliver(range(60, 160))
    again = fresh.promptmint("run", fresh.recipe, "--json").json
    assert (again["seen_by_champion"]["examples"], again["seen_by_champion"]["of"]) == (60, 100)
    assert (again["scores"]["champion"]["n"], again["scores"]["prompt"]["n"]) == (40, 100)
    deliver(range(200, 300))
    refused = fresh.promptmint("run", fresh.recipe, "--json").json
    assert refused["verdict"] == "refused" and "each of the 100 test examples" in refused["reason"]
