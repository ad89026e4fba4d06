"""A recipe that asks for all there is, as its owner runs it: disturbed texts, added latency, a family that decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.errors import RecipeError

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROBUST = """
[[gates.robust]]
to = "typos"
rate = 0.05
margin = 60.0

[[gates.robust]]
to = "truncation"
rate = 0.2
margin = 60.0
beside = "lora"

[promotion]"""


def test_all_gates_are_asked_and_the_family_promotes(workshop: Callable[..., Any], tmp_path: Any) -> None:
    shop = workshop(tmp_path / "workshop")
    shop.edit("[promotion]", ROBUST)
    shop.edit("epochs = 8", "epochs = 4")
    shop.edit("trainable_params = 2_000", "trainable_params = 2_000, added_latency_ms = 1000.0, latency_tokens = 16")
    shop.edit('policy = "automatic"', 'policy = "family"\nfamily = "nightly"')
    done = shop.promptmint("run", "orchard.toml", "--json", timeout_s=600)
    assert done.code == 0, done.err
    gates = {gate["name"]: gate for gate in done.json["gates"]}
    assert done.json["verdict"] == "passed", done.json["reason"]
    assert {"robust to typos (5 %)", "robust to truncation (20 %) beside lora"} <= set(gates)
    assert all(0 < gates[name]["claim_p_value"] < 0.05 for name in gates if name.startswith("robust"))
    latency = done.json["latency"]
    assert gates["budget of added latency"]["estimate"] == latency["added_latency_ms"]
    assert latency["base_latency_ms"] > 0 and latency["machine"]["device"] == "cpu"
    disturbed = done.json["disturbed"]
    assert disturbed["robust to truncation (20 %) beside lora"]["scores"].keys() == {"prompt", "lora"}
    assert all(found["changed"] > 0 for found in disturbed.values())

    waits = shop.promptmint("status", "orchard", "--json").json
    assert (waits["champion"], waits["challenger"]) == (None, 1), "it waits for its family"
    here = {"PROMPTMINT_RECIPES": str(shop.folder)}
    tried = shop.promptmint("promote-family", "nightly", "--dry-run", "--json", **here).json
    assert [each["promoted"] for each in tried["members"]] == [True]
    decided = shop.promptmint("promote-family", "nightly", **here)
    assert decided.code == 0 and "orchard version 1: promoted, proven among the 1 of the family" in decided.out
    assert shop.promptmint("status", "orchard", "--json").json["champion"] == 1
    again = shop.promptmint("promote-family", "nightly", "--json", **here)
    assert [each["why"] for each in again.json["members"]] == ["nothing waits"]
    unknown = shop.promptmint("promote-family", "weekly", **here)
    assert unknown.code == RecipeError.exit_code and "Families of the known recipes: 'nightly'" in unknown.err

    unchanged = shop.promptmint("run", "orchard.toml", "--json")
    assert unchanged.json["unchanged"] and unchanged.json["latency"] == latency, "a measured time changes nothing"
    page = shop.promptmint("report", "orchard", "--html", "page.html")
    assert page.code == 0 and "Robust to typos (5\N{NO-BREAK SPACE}%)" in (shop.folder / "page.html").read_text()
