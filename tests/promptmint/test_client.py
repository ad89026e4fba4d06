"""References to prompts, and what is known of them where nobody can be asked."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_config import registry
from pipelines.digests import canonical_json
from pipelines.errors import ArtifactError, BaseModelError, RegistryError, TransientError
from pipelines.prompts.artifact import read_prompt
from pipelines.settings import cache_folder, store_uri
from pipelines.store.opening import the_store
from pipelines.store.trees import save_tree
from promptmint.client import Found, find, find_or_recall, load, pull, recall, resolved


@pytest.mark.parametrize("reference", [
    "", "tickets", "tickets@", "@1", "tickets@latest", "tickets@0", "tickets@01", "tickets@-1", "tickets@1.0",
    "Tickets@1", "-tickets@1", "a/b@1", "../b@1", "tickets@1\n", "tickets @1", "tickets@champion@1", "b'@1",
])  # fmt: skip
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(RegistryError, match="is no reference to a prompt: write NAME@champion"):
        resolved(reference)


def test_a_number_is_taken_as_it_is() -> None:
    assert resolved("ticket-routing@12") == ("ticket-routing", 12)


def test_an_alias_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "resolve", lambda name, alias: {("a", "champion"): 3, ("a", "challenger"): 5}[name, alias]
    )
    assert resolved("a@champion") == ("a", 3)
    assert resolved("a@challenger") == ("a", 5)


# The last known good.


@pytest.fixture
def registered(minted: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A prompt in the store, champion of a registry that can be cut off: `registered.down = True`."""
    from mlflow_config import names

    artifact = save_tree(the_store(), minted.folder)
    save_tree(the_store(), minted.base_folder)
    line = SimpleNamespace(down=False, champion=4, digest=minted.digest, artifact=artifact)

    def asked(answer: Any) -> Any:
        if line.down:
            raise TransientError("MLflow cannot be reached.")
        return answer

    monkeypatch.setattr(registry, "resolve", lambda name, alias: asked(line.champion))
    monkeypatch.setattr(
        registry,
        "version_tags",
        lambda name, version: asked({names.TAG_ARTIFACT: line.artifact, names.TAG_PROMPT: line.digest}),
    )
    return line


def test_what_is_known_is_taken_where_the_registry_is_down_and_said(registered: Any, minted: Any) -> None:
    assert load("tickets@champion").prompt.digest == minted.digest
    registered.down, registered.champion = True, 5
    with pytest.warns(UserWarning, match=r"tickets@champion is version 4, the last known good: MLflow cannot be reach"):
        assert load("tickets@champion").prompt.digest == minted.digest
    with pytest.raises(TransientError):
        load("letters@champion")


def test_what_is_known_is_taken_where_the_store_is_gone(registered: Any, minted: Any, tmp_path: Path) -> None:
    load("tickets@champion")
    shutil.rmtree(store_uri().removeprefix("file://"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_or_recall("tickets@champion").folder.is_dir(), "all of it is in the cache"
    registered.down = True
    with pytest.warns(UserWarning, match="last known good"):
        assert (pull("tickets@champion", tmp_path) / "prompt.json").is_file()
    spoilt = find_or_recall_quietly().folder / "prompt.json"
    spoilt.write_bytes(spoilt.read_bytes() + b" ")
    with pytest.raises(TransientError):
        find_or_recall("tickets@champion")


def find_or_recall_quietly() -> Found:
    with pytest.warns(UserWarning):
        return find_or_recall("tickets@champion")


def test_another_registry_knows_other_prompts(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load("tickets@champion")
    assert recall("tickets@champion") is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert recall("tickets@champion") is None


def test_a_spoilt_prompt_in_the_cache_is_fetched_anew(registered: Any) -> None:
    folder = find("tickets@champion").folder
    before = (folder / "prompt.safetensors").read_bytes()
    (folder / "prompt.safetensors").write_bytes(before[:-1])
    assert (find("tickets@champion").folder / "prompt.safetensors").read_bytes() == before


def test_what_was_refused_is_not_the_last_known_good(registered: Any, minted: Any, mint_on: Any) -> None:
    load("tickets@champion")
    registered.champion, registered.digest = 5, "0" * 64
    for _ in range(2):
        with pytest.raises(ArtifactError, match="0" * 64):
            load("tickets@champion")
    registered.down = True
    with pytest.warns(UserWarning, match="is version 4, the last known good"):
        assert load("tickets@champion").prompt.digest == minted.digest


def test_a_prompt_whose_base_is_another_s_is_refused(
    registered: Any, minted: Any, gpt2_folder: Path, tmp_path: Path
) -> None:
    """It says that it belongs to a base in the store, and that one is not what it was minted on."""
    forged = Path(shutil.copytree(minted.folder, tmp_path / "forged"))
    card = json.loads((forged / "prompt.json").read_bytes())
    card["base"]["digest"] = save_tree(the_store(), gpt2_folder)
    (forged / "prompt.json").write_bytes(canonical_json(card) + b"\n")
    registered.artifact, registered.digest = save_tree(the_store(), forged), read_prompt(forged).digest
    with pytest.raises(BaseModelError, match=r"minted on another base than the base 'bert.*has SHA-256 .*, wanted "):
        load("tickets@champion")
    assert recall("tickets@champion") is None


def test_a_base_spoilt_in_the_cache_is_fetched_anew(registered: Any, minted: Any) -> None:
    load("tickets@champion")
    (weights,) = cache_folder().glob("*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert load("tickets@champion").prompt.digest == minted.digest
    assert weights.read_bytes() == (minted.base_folder / "model.safetensors").read_bytes()
