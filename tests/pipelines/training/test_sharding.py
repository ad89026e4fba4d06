"""A base cut over two workers tunes and answers what a whole one does, and each worker holds its part alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.errors import RecipeError
from pipelines.recipe import Adapters, Head, Lora
from pipelines.training.compute import Compute
from pipelines.training.job import ScoreJob
from pipelines.training.launch import launch
from tests.pipelines.training.test_launch import LABELS, SETTINGS, job

TWO = Compute(workers=2, device="cpu", threads=1, sharded=True)
KINDS = ("prompt", "encoded", "lora", "adapters")


@pytest.fixture(scope="module")
def made(place: Any, one_worker: Compute, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same jobs by one worker with the whole base, and by two with half of it each."""
    root = tmp_path_factory.mktemp("sharding")
    settings = {"lora": Lora(rank=2, rate=1e-2), "adapters": Adapters(bottleneck=2, rate=1e-2)}
    tuned = root / "whole" / "prompt"
    scoring = ScoreJob(name="scores", kind="prompt", weights=tuned, settings=SETTINGS["prompt"].model_dump(mode="json"),
                       head=Head(), labels=LABELS, rows=place.folders["test"])  # fmt: skip
    for name, compute in (("whole", one_worker), ("cut", TWO)):
        for jobs in ([job(place, kind, settings.get(kind)) for kind in KINDS], [scoring]):
            launch(place.base_folder, jobs, compute, lambda news: None,
                   lambda job, folder, to=root / name: shutil.copytree(folder, to / job), root / "scratch")  # fmt: skip
    return {name: root / name for name in ("whole", "cut")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_base_tunes_what_a_whole_one_does(kind: str, made: dict[str, Path]) -> None:
    name = "weights" if kind in ("lora", "adapters") else "prompt"
    cut, whole = (load_file(made[side] / kind / f"{name}.safetensors") for side in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    for key, tensor in whole.items():
        assert float((cut[key] - tensor).abs().max()) < 2e-4, key


@pytest.mark.slow
def test_a_cut_base_answers_what_a_whole_one_does(made: dict[str, Path]) -> None:
    cut, whole = (load_file(made[side] / "scores" / "logits.safetensors")["logits"] for side in ("cut", "whole"))
    assert float((cut - whole).abs().max()) < 1e-5


def test_full_fine_tuning_of_a_cut_base_is_refused(place: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="sharded = true"):
        launch(place.base_folder, [job(place, "full")], TWO, print, print, tmp_path)
