"""A sweep tunes every combination once, ranks by validation alone, and what it chose is not tuned again."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import TrainingError
from pipelines.recipe import (
    Baselines,
    BasePin,
    Data,
    HeadOnly,
    Optimisation,
    Prompt,
    Recipe,
    Sweep,
    Template,
    changed,
)
from pipelines.training.compute import Compute
from pipelines.training.leaderboard import Row, chosen, sweep
from pipelines.training.tuning import train_all

ENDLESS = 1e38  # a start whose squares are no numbers


def recipe(**more: Any) -> Recipe:
    return Recipe(
        name="tickets",
        base=BasePin(name="tiny/bert", sources=("file://base",)),
        data=Data(path="tickets.csv", labels=("account", "billing")),
        template=Template(max_tokens=32),
        training=Optimisation(epochs=2, batch_size=16),
        prompt=Prompt(method="prompt-tuning", tokens=3, rate=0.1),
        baselines=Baselines(head_only=HeadOnly(rate=0.1)),
        **more,
    )


SWEPT = recipe(
    sweep=Sweep(
        prompt=(
            {"method": ["prompt-tuning", "p-tuning-v2"], "rate": [1e-6, 0.3]},
            {"seed": [1, 2], "init_scale": ENDLESS},
        ),
        head_only=({"rate": [1e-6, 0.3]},),
    )
)


def run(place: Any, asked: Recipe, compute: Compute) -> list[Row]:
    return sweep(
        place.store, asked, place.base, place.base_folder, place.shards, compute, place.cache,
        lambda news: None, lambda name, reused: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def board(place: Any, one_worker: Compute) -> list[Row]:
    return run(place, SWEPT, one_worker)


def test_every_combination_has_a_row_and_the_best_of_each_method_is_chosen(board: list[Row]) -> None:
    prompts = [row for row in board if row["method"] == "prompt"]
    assert len(prompts) == 6 and len(board) == 8 and [row["method"] for row in board[6:]] == ["head_only"] * 2
    assert [row["chosen"] for row in board] == [True, *[False] * 5, True, False]
    for rows in ([row for row in prompts if "diverged_at" not in row], board[6:]):
        order = [(-row["validation_accuracy"], row["validation_loss"]) for row in rows]
        assert order == sorted(order) and len(set(order)) == len(rows)
    assert sum("diverged_at" in row for row in board) == 2


def test_what_diverges_comes_last_and_stops_nothing(board: list[Row]) -> None:
    lost = [row for row in board if "diverged_at" in row]
    assert board[4:6] == lost and [row["change"]["seed"] for row in lost] == [1, 2]
    assert all(row["diverged_at"] == 1 for row in lost)


def test_the_chosen_settings_are_not_tuned_again(board: list[Row], place: Any, one_worker: Compute) -> None:
    settled = chosen(SWEPT, board)
    assert settled.sweep is None
    assert settled.prompt == Prompt(tokens=3, **board[0]["change"])
    assert settled.baselines == Baselines(head_only=HeadOnly(**board[6]["change"]))
    results = train_all(
        place.store, settled, place.base, place.base_folder, place.shards, one_worker, place.cache,
        lambda news: None, lambda name, reused: None,
    )  # fmt: skip
    assert {name: result["reused"] for name, result in results.items()} == {"prompt": True, "head_only": True}


def test_a_sweep_that_grows_tunes_only_what_is_new(board: list[Row], place: Any, one_worker: Compute) -> None:
    wider = SWEPT.model_copy(update={"sweep": Sweep(head_only=({"rate": [1e-6, 0.3, 0.03]},))})
    rows = run(place, wider, one_worker)
    assert {row["change"]["rate"]: row["reused"] for row in rows} == {1e-6: True, 0.3: True, 0.03: False}


def test_where_all_diverge_nothing_is_chosen(board: list[Row], place: Any, one_worker: Compute) -> None:
    hopeless = SWEPT.model_copy(update={"sweep": Sweep(prompt=({"seed": [1, 2], "init_scale": ENDLESS},))})
    with pytest.raises(TrainingError, match=r"Every setting of prompt that was swept diverged: .*Sweep lower rates"):
        run(place, hopeless, one_worker)
    alone = changed(recipe(), "prompt", {"seed": 1, "init_scale": ENDLESS})
    with pytest.raises(TrainingError, match="prompt diverged at step 1 when a sweep tuned it"):
        train_all(
            place.store, alone, place.base, place.base_folder, place.shards, one_worker, place.cache,
            lambda news: None, lambda name, reused: None,
        )  # fmt: skip


def test_a_chosen_seed_is_the_recipes() -> None:
    row = {"method": "prompt", "change": {"seed": 7}, "chosen": True}
    assert chosen(SWEPT, [row]).seed == 7


@pytest.mark.parametrize(
    ("grids", "why"),
    [
        (
            {"prompt": [{"rate": [0.1, -1]}]},
            "sweep.prompt: {'rate': -1} is not possible: Input should be greater than 0",
        ),
        ({"prompt": [{"method": "prompt-tuning", "hidden": 8}]}, "prompt-tuning has no key 'hidden'"),
        ({"prompt": [{"size": [1]}]}, "sweep.prompt: {'size': 1} is not possible: Extra inputs are not permitted"),
        ({"prompt": [{"seed": [-1]}]}, "sweep.prompt: {'seed': -1} is not possible"),
        (
            {"prompt": [{"method": "dept", "positions": [8, 64]}]},
            "'positions': 64} is not possible: prompt.positions = 64",
        ),
        ({"lora": [{"rate": [0.1]}]}, "sweep.lora needs [baselines.lora]"),
        ({"head_only": [{"seed": [1, 2]}]}, "sweep.head_only: the seed is the prompt's to choose"),
    ],
)
def test_an_impossible_combination_is_refused_with_the_recipe(grids: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError) as caught:
        recipe(sweep=grids)
    assert why in str(caught.value)


def test_a_sweep_needs_a_validation_split() -> None:
    data = Data(path="tickets.csv", labels=("account", "billing"), validation_fraction=0.0)
    with pytest.raises(ValueError, match="a sweep chooses by the validation split"):
        Recipe.model_validate({**SWEPT.model_dump(), "data": data.model_dump()})


def test_a_recipe_without_a_sweep_has_the_digest_it_had() -> None:
    assert "sweep" not in recipe().model_dump() and "sweep" in SWEPT.model_dump()
    assert recipe().digest != SWEPT.digest


def test_the_keys_of_another_method_are_left_behind() -> None:
    residual = recipe().model_copy(update={"prompt": Prompt(method="residual", tokens=3, rate=0.1, bottleneck=8)})
    assert changed(residual, "prompt", {"method": "prompt-tuning"}).prompt == recipe().prompt
