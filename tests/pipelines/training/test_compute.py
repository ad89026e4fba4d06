"""A compute profile is read whole or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import RecipeError
from pipelines.training.compute import Compute, load_compute

PROFILES = sorted((Path(__file__).parents[3] / "infra/compute").glob("*.toml"))


def test_without_a_profile_there_is_one_worker() -> None:
    assert load_compute() == Compute(workers=1, device="auto", threads=0)


def test_a_profile_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "box.toml"
    path.write_text('workers = 2\ndevice = "cpu"\n')
    assert load_compute(path) == load_compute(str(path)) == Compute(workers=2, device="cpu")
    monkeypatch.setenv("PROMPTMINT_COMPUTE", str(path))
    assert load_compute().workers == 2


@pytest.mark.parametrize("text", ["worker = 2", "workers = 0", "checkpoint_s = 0", 'device = "tpu"', "workers ="])
def test_what_cannot_be_used_is_refused_with_the_known_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "box.toml"
    path.write_text(text)
    with pytest.raises(
        RecipeError, match=rf"(?s)'{path}'.*Known keys: name, workers, device, threads, jobs, timeout_s"
    ):
        load_compute(path)


def test_a_missing_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Cannot use the compute profile"):
        load_compute(tmp_path / "none.toml")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_profiles_of_the_house_load(path: Path) -> None:
    assert load_compute(path).workers >= 1
