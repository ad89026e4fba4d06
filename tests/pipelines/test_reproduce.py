"""What a reproduction needs and does not find; that it ends with the same bits is in acceptance/test_keeping.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ArtifactError, NotInStore, RecipeError
from pipelines.recipe import BasePin, Data, Prompt, Recipe
from pipelines.reproduce import reproduce
from pipelines.runs import finish
from pipelines.store.local import LocalStore

RECIPE = Recipe(
    name="tickets",
    base=BasePin(name="bert", sources=("file://base",)),
    data=Data(path="tickets.csv", labels=("account", "billing")),
    prompt=Prompt(method="p-tuning-v2", tokens=4, rate=0.1),
)
SETTINGS = RECIPE.model_dump(mode="json", exclude={"description"})
ORIGIN = {"prompt_digest": "b" * 64, "run_key": "a" * 64, "data_digest": "d" * 64, "versions": {"promptmint": "0.0.1"}}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def again(minted: Any, store: LocalStore, tmp_path: Path) -> Callable[..., object]:
    """Reproduces the minted prompt, its provenance written with these keys beside those of any version."""

    def reproduced(digest: str = minted.digest, **origin: object) -> object:
        folder = tmp_path / "artifact"
        shutil.copytree(minted.folder, folder)
        (folder / "provenance.json").write_text(json.dumps(ORIGIN | origin))
        return reproduce(store, folder, digest, None, tmp_path / "work", tmp_path / "cache", lambda news: None)

    return reproduced


def test_a_prompt_whose_recipe_nobody_kept(again: Callable[..., object]) -> None:
    with pytest.raises(
        RecipeError, match=r"Nothing says by which recipe the prompt b+ was minted.*no record of its run"
    ):
        again()


def test_an_older_prompts_recipe_is_that_of_its_run(again: Callable[..., object], store: LocalStore) -> None:
    finish(store, {"recipe": "tickets", "run_key": "a" * 64, "settings": SETTINGS})
    with pytest.raises(NotInStore, match=r"bases/"):  # so the recipe was found and read
        again()


def test_a_recipe_that_is_read_differently_now(again: Callable[..., object]) -> None:
    with pytest.raises(
        RecipeError, match=r"cannot read the recipe(?s:.)*minted by promptmint 0\.0\.1: reproduce it with"
    ):
        again(recipe=SETTINGS | {"flavour": "sweet"})


def test_a_base_that_is_lost(again: Callable[..., object]) -> None:
    with pytest.raises(NotInStore, match=r"bases/"):
        again(recipe=SETTINGS)


def test_a_prompt_that_was_changed(again: Callable[..., object]) -> None:
    with pytest.raises(ArtifactError, match="wanted 0000"):
        again(digest="0" * 64, recipe=SETTINGS)
