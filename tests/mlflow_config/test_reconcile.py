"""A real MLflow moved by hand, and held to the ledger again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_config import names, registry
from mlflow_config.reconcile import Difference, differences, repair
from mlflow_config.tracking import connected

pytestmark = pytest.mark.usefixtures("mlflow_home")

TAGS = {version: {names.TAG_VERDICT: "passed", names.TAG_RUN_KEY: f"{version:064}"} for version in (1, 2)}


@pytest.fixture
def two_versions(mlflow_home: Path, artifact: Path, record: dict[str, Any]) -> None:
    """Two registered versions, the second champion, as the ledger has it."""
    for version in (1, 2):
        registry.register("tickets", artifact, record | {"run_key": f"{version:064}"}, {})
    registry.project("tickets", champion=2, challenger=None)


@pytest.mark.usefixtures("two_versions")
def test_what_agrees_is_left_alone() -> None:
    assert differences("tickets", 2, None, TAGS) == ([], [])


@pytest.mark.usefixtures("two_versions")
def test_what_was_moved_by_hand_is_found_and_put_right() -> None:
    with connected() as client:
        client.set_registered_model_alias("tickets", "champion", "1")
        client.set_registered_model_alias("tickets", "challenger", "1")
        client.set_registered_model_alias("tickets", "canary", "1")  # not ours
        client.set_model_version_tag("tickets", "1", names.TAG_VERDICT, "refused")
        client.delete_model_version_tag("tickets", "2", names.TAG_RUN_KEY)
        client.set_model_version_tag("tickets", "2", "note", "mine")  # not ours
    found, lost = differences("tickets", 2, None, TAGS)
    assert lost == []
    assert found == [
        Difference("tickets", "champion", None, None, "1", "2"),
        Difference("tickets", "challenger", None, None, "1", None),
        Difference("tickets", None, names.TAG_VERDICT, 1, "refused", "passed"),
        Difference("tickets", None, names.TAG_RUN_KEY, 2, None, f"{2:064}"),
    ]
    assert [str(each) for each in found][1:3] == [
        "tickets: alias 'challenger': 1 -> none",
        "tickets: tag 'promptmint.verdict' of version 1: refused -> passed",
    ]
    assert differences("tickets", 2, None, TAGS) == (found, [])  # looking changes nothing
    repair(found)
    assert differences("tickets", 2, None, TAGS) == ([], [])
    with connected() as client:
        aliases = client.get_registered_model("tickets").aliases
        assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 2, "canary": 1}
        assert client.get_model_version("tickets", "2").tags["note"] == "mine"


@pytest.mark.usefixtures("two_versions")
def test_a_version_that_mlflow_lost_is_told_and_the_alias_left_where_it_answers() -> None:
    assert differences("tickets", 3, None, TAGS | {3: {}}) == ([], [3])


def test_a_recipe_that_mlflow_never_saw() -> None:
    assert differences("tickets", 1, None, {1: {}}) == ([], [1])


@pytest.mark.usefixtures("two_versions")
def test_every_digest_that_a_version_names_is_known(record: dict[str, Any]) -> None:
    named = {record[key] for key in ("prompt_digest", "base_digest", "data_digest", "recipe_digest", "artifact")}
    assert registry.digests() == named | {f"{1:064}", f"{2:064}"}
