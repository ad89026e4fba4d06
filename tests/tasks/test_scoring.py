"""What a new prompt is compared with: the champion, or the reason why there is nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.evaluation.gates import NO_CHAMPION
from pipelines.promotion.ledger import promote, register
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finish
from pipelines.store.opening import the_store
from pipelines.training.compute import Compute
from tasks.scoring import Reigning, score_champion

RECIPE = """
name = "talk"
base = { name = "none", sources = ["file://none"] }
data = { path = "talk.csv", labels = ["apples", "boats"] }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "talk.toml").write_text(RECIPE)
    return load_recipe(tmp_path / "talk.toml")


@pytest.fixture
def reigning(recipe: Recipe) -> Callable[..., Reigning]:
    """Asks a run who reigns; a champion that can be compared would be looked for on a base that is not there."""
    return lambda run_key="f" * 64: score_champion.fn(recipe, run_key, "0" * 64, Compute())


@pytest.fixture
def crown(recipe: Recipe) -> Callable[[], None]:
    """Makes version 1 champion."""

    def make() -> None:
        register(the_store(), "talk", 1, prompt_digest="b" * 64, verdict="passed", run_key="a" * 64, who="flow", why="")
        promote(the_store(), "talk", 1, who="ann", why="")

    return make


def test_nobody_reigns_yet(reigning: Callable[..., Reigning]) -> None:
    assert reigning() == Reigning(None, NO_CHAMPION, 0)


def test_a_champion_on_other_labels_is_not_called_nobody(
    reigning: Callable[..., Reigning], crown: Callable[[], None]
) -> None:
    crown()
    finish(the_store(), {"recipe": "talk", "run_key": "a" * 64, "labels": ["apples", "ships"]})
    why = "the champion (version 1) answers other labels, 'apples', 'ships', so there was no comparison"
    assert reigning() == Reigning(None, why, 2)


def test_a_champion_whose_run_is_lost_is_not_called_nobody(
    reigning: Callable[..., Reigning], crown: Callable[[], None]
) -> None:
    crown()
    why = "the store has no record of the champion's run (version 1), so there was no comparison"
    assert reigning() == Reigning(None, why, 2)


def test_a_run_that_was_promoted_and_interrupted_is_not_compared_with_itself(
    reigning: Callable[..., Reigning], crown: Callable[[], None]
) -> None:
    crown()
    assert reigning(run_key="a" * 64) == Reigning(None, NO_CHAMPION, 2)
