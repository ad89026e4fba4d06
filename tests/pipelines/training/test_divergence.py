"""A training whose loss goes up and stays there ends, and its checkpoints are from before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import DivergedError
from pipelines.inference.base import Base, load_base
from pipelines.recipe import Optimisation, Prompt
from pipelines.training.checkpoint import Keeper
from pipelines.training.divergence import check_course, is_far_up
from pipelines.training.loop import train
from pipelines.training.shards import Rows
from pipelines.training.tuned import linear_head, tune

pytestmark = pytest.mark.usefixtures("one_thread")
METHOD = Prompt(method="p-tuning-v2", tokens=4, rate=0.1)
DOWN = [(step, 2.0 / step) for step in range(1, 31)]


@pytest.fixture(scope="module")
def base(bert_folder: Path) -> Base:
    return load_base(bert_folder)


def test_a_finite_loss_that_stays_far_up_stops_the_training(
    base: Base, rows: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessed = np.random.default_rng(0).integers(0, 2, len(rows["train"]))  # labels that nobody can learn
    settings = METHOD.model_copy(update={"head_rate": 100.0})
    shared = Optimisation(epochs=20, batch_size=16, warmup=0.1)
    seen: list[float] = []
    keep = Keeper.keep

    def told(keeper: Keeper, state: Any, *more: Any) -> None:
        seen.append(state.curve[-1][1])
        keep(keeper, state, *more)

    monkeypatch.setattr(Keeper, "keep", told)
    torch.manual_seed(1)
    tuned = tune(base, settings, linear_head(base, 2, 1), 1)
    with pytest.raises(DivergedError, match=r"The loss has been above \d+ since step \d+, .* last good checkpoint is"):
        train(
            tuned, settings, shared, 1, replace(rows["train"], labels=guessed), rows["validation"], lambda news: None,
            Keeper(tmp_path, every_s=1e-9),
        )  # fmt: skip
    assert seen and max(seen) < 10, "no checkpoint from up there"


def test_what_comes_down_again_goes_on() -> None:
    spike = [*DOWN[:10], *((step, 99.0) for step in range(11, 20)), *DOWN[19:]]
    for end in range(1, len(spike) + 1):
        check_course(spike[:end], METHOD, Keeper())
    assert is_far_up(spike[:15]) and not is_far_up(spike) and not is_far_up(DOWN)
    with pytest.raises(DivergedError, match=r"above 10 since step 11, and began at 0\.4; it is 99 at step 20"):
        check_course([*spike[:19], (20, 99.0)], METHOD, Keeper())


def test_a_champions_loss_says_little_about_what_is_far() -> None:
    warm = [(step, 0.01 if step < 6 else 0.9) for step in range(1, 31)]
    check_course(warm, METHOD, Keeper())
