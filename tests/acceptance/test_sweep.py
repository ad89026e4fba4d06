"""A recipe with a sweep, as its owner runs it: a leaderboard, one verdict, and nothing tuned twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SWEEP = """
[[sweep.prompt]]
method = ["p-tuning-v2", "prompt-tuning"]
rate = 1e-2

[[sweep.lora]]
rate = [1e-6, 1e-2]

[promotion]"""


def test_a_sweep_is_chosen_judged_and_told(workshop: Callable[..., Any], tmp_path: Any) -> None:
    shop = workshop(tmp_path / "workshop")
    shop.edit("[promotion]", SWEEP)
    shop.edit("epochs = 8", "epochs = 2")
    done = shop.promptmint("run", "orchard.toml", "--json", timeout_s=400)
    assert done.code == 0, done.err
    board = done.json["leaderboard"]
    assert [row["method"] for row in board] == ["prompt"] * 2 + ["lora"] * 2
    assert [row["chosen"] for row in board] == [True, False, True, False]
    best = board[0]["change"]

    again = shop.promptmint("run", "orchard.toml")
    assert again.code == 0 and "Unchanged" in again.out
    assert "settings, chosen by the validation split" in again.out

    # What was chosen, written down as a recipe of its own, is known already.
    shop.edit(SWEEP, "[promotion]")
    shop.edit('method = "p-tuning-v2"', f'method = "{best["method"]}"')
    shop.edit(
        "rate = 1e-2\nhead_rate = 3e-2\n\n[baselines.lora]",
        f"rate = {best['rate']}\nhead_rate = 3e-2\n\n[baselines.lora]",
    )
    plain = shop.promptmint("run", "orchard.toml", "--json", timeout_s=400)
    assert plain.code == 0, plain.err
    assert plain.json["prompt_digest"] == done.json["prompt_digest"]
    assert "leaderboard" not in plain.json
