"""A Prefect server of the tests' own, and a workshop: recipes in a folder, a pinned base, data that may be new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client

from pipelines.bases.pin import pin_base
from pipelines.data.snapshot import snapshot
from pipelines.recipe import Recipe, load_recipe
from pipelines.runs import finish, new_record, run_key
from pipelines.store.opening import the_store

RECIPE = """
name = "NAME"
base = { name = "tiny", sources = ["file://../base"] }
data = { path = "../NAME", labels = ["apples", "boats"] }
prompt = { method = "p-tuning-v2", tokens = 4, rate = 1e-2 }
"""


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@dataclass(frozen=True)
class Workshop:
    """A folder with recipes, a base, and a folder of data per recipe."""

    folder: Path

    def recipe(self, name: str) -> Recipe:
        """The recipe of this name, made where there is none; its data are one file."""
        path = self.folder / "recipes" / f"{name}.toml"
        if not path.exists():
            path.write_text(RECIPE.replace("NAME", name))
            self.deliver(name, "a.csv", "text,label\ncore,apples\n")
        return load_recipe(path)

    def deliver(self, name: str, file: str, text: str) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / file).write_text(text)

    def finish(self, name: str, **more: Any) -> dict[str, Any]:
        """The record of a run that has ended on the data as they are."""
        recipe = self.recipe(name)
        base = pin_base(the_store(), recipe.base, recipe.folder, self.folder / "scratch")
        data = snapshot(the_store(), recipe.data, recipe.folder)
        record = new_record(recipe, run_key(recipe, base.digest, data.digest), base.digest, data.digest)
        record |= {"verdict": "passed", "reason": "passed: as good as LoRA", "version": 3, **more}
        finish(the_store(), record)
        return record


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop without recipes."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_text("weights")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    monkeypatch.setenv("PROMPTMINT_RECIPES", str(tmp_path / "recipes"))
    return Workshop(tmp_path)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Calls a function until it returns something true, for ten seconds."""
    import time

    def until(found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 10
        while not (value := found()):
            assert time.monotonic() < deadline, value
            time.sleep(0.1)
        return value

    return until
