"""What keeps a recipe in order over the months: listed, minted again, MLflow put right, the store swept.

One story in one workshop, told in order, as in test_main_job.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_config import names, tracking
from pipelines.memo import Stage, remember
from pipelines.store.local import LocalStore
from pipelines.store.trees import save_tree

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

MONTH_S = 30 * 24 * 3600
OVERTAKEN = """
import json
from promptmint.embedded import embedded_prefect
embedded_prefect()
from flows.retrain import mint
from pipelines.promotion.ledger import promote
from pipelines.store.opening import the_ledger
from tasks.progress import listeners

def overtake(news):
    if news.stage == "judge":  # the champion has been scored
        promote(the_ledger(), "orchard", 2, who="ann", why="I was sooner", force=True)

listeners.append(overtake)
print(json.dumps(mint("orchard.toml")))
"""


@pytest.fixture(scope="module")
def shop(workshop: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workshop(tmp_path_factory.mktemp("keeping") / "workshop")


@pytest.fixture(scope="module")
def first(shop: Any) -> dict[str, Any]:
    """The run that everything else is about."""
    ended = shop.promptmint("run", "orchard.toml", "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.json
    return found


@pytest.fixture
def in_mlflow(shop: Any, first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process speaks to the workshop's MLflow."""
    monkeypatch.setenv("PROMPTMINT_HOME", str(shop.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_every_recipe_is_on_a_line(shop: Any, first: dict[str, Any]) -> None:
    (line,) = shop.promptmint("status", "--json").json["recipes"]
    assert (line["name"], line["champion"], line["challenger"], line["last_verdict"]) == ("orchard", 1, None, "passed")
    shown = shop.promptmint("status")
    assert shown.code == 0 and shown.err == "" and "1 recipe" in shown.out and "orchard" in shown.out


class TestReproduce:
    def test_a_version_minted_again_is_the_same_bit_by_bit(self, shop: Any, first: dict[str, Any]) -> None:
        before, work = shop.files(), set((shop.home / "work").iterdir())
        again = shop.promptmint("reproduce", "orchard@1", "--json")
        assert again.code == 0, again.err
        assert again.json["equal"] and again.json["seconds"] > 0
        assert again.json["prompt_digest"] == again.json["reproduced_digest"] == first["prompt_digest"]
        assert [again.json[key] for key in ("card", "tensors", "machine", "versions")] == [{}, {}, {}, {}]
        assert shop.files() == before and set((shop.home / "work").iterdir()) == work

    @pytest.mark.usefixtures("in_mlflow")
    def test_another_seed_is_told_in_numbers_and_fails(self, shop: Any, first: dict[str, Any], tmp_path: Path) -> None:
        forged = shutil.copytree(shop.home / "cache" / first["artifact"], tmp_path / "forged")
        origin = json.loads((forged / "provenance.json").read_bytes())
        origin["recipe"]["seed"] += 1
        origin["versions"]["torch"] = "0.1"
        (forged / "provenance.json").write_text(json.dumps(origin))
        store = LocalStore(shop.store)
        before = store.keys("")
        with tracking.connected() as client:
            client.set_model_version_tag("orchard", "1", names.TAG_ARTIFACT, save_tree(store, forged))
            again = shop.promptmint("reproduce", "orchard@1", "--json")
            client.set_model_version_tag("orchard", "1", names.TAG_ARTIFACT, first["artifact"])
        for key in set(store.keys("")) - set(before):
            store.delete(key)
        assert again.code == 1 and not again.json["equal"]
        assert again.json["card"].keys() == {"recipe", "seed"} and again.json["card"]["seed"] == [3, 4]
        assert again.json["tensors"]["keys"] > 0 and again.json["tensors"]["head.weight"] > 0
        assert again.json["versions"]["torch"][0] == "0.1" and again.json["machine"] == {}


class TestReconcile:
    @pytest.mark.usefixtures("in_mlflow")
    def test_what_was_moved_by_hand_is_put_right_and_told(self, shop: Any) -> None:
        with tracking.connected() as client:
            client.delete_registered_model_alias("orchard", "champion")
            client.set_registered_model_alias("orchard", "challenger", "1")
            client.delete_model_version_tag("orchard", "1", names.TAG_DATA)
        assert shop.promptmint("pull", "orchard@champion").code == 9
        told = shop.promptmint("reconcile", "--dry-run", "--json").json
        assert [(each["alias"], each["tag"]) for each in told["changed"]] == [
            ("champion", None), ("challenger", None), (None, names.TAG_DATA)
        ]  # fmt: skip
        assert told["dry_run"] and told["lost"] == []
        done = shop.promptmint("reconcile", "orchard")
        assert done.code == 0, done.err
        assert done.out.splitlines()[:2] == [
            "orchard: alias 'champion': none -> 1",
            "orchard: alias 'challenger': 1 -> none",
        ]
        assert done.out.splitlines()[-1] == "3 changed"
        assert shop.promptmint("reconcile", "orchard", "--json").json["changed"] == []
        assert shop.promptmint("pull", "orchard@champion").code == 0

    def test_a_recipe_that_nobody_knows_is_refused(self, shop: Any, first: dict[str, Any]) -> None:
        refused = shop.promptmint("reconcile", "orchid")
        assert refused.code == 10 and "It knows 'orchard'" in refused.err


def test_a_decision_on_an_entry_that_is_not_there_is_refused(shop: Any, first: dict[str, Any]) -> None:
    refused = shop.promptmint("promote", "orchard", "1", "--why", "it is best", "--expected", "9")
    assert refused.code == 10 and "ends at entry 2; it has no entry 9" in refused.err


class TestGarbage:
    def test_nothing_that_a_run_made_is_garbage_however_old_it_is(self, shop: Any, first: dict[str, Any]) -> None:
        self.age(shop)
        found = shop.promptmint("gc", "--json").json
        assert found["keys"] == [] and not found["deleted"] and found["older_than_days"] == 14
        kinds = found["kinds"]
        assert kinds.pop("activations")["kept"] == 0  # this prompt stands before the text: nothing is read once
        assert {kind: each for kind, each in kinds.items() if each["kept"] <= 3 or each["garbage"]} == {}

    def test_what_nobody_needs_is_shown_and_then_removed(
        self, shop: Any, first: dict[str, Any], tmp_path: Path
    ) -> None:
        needed, store = shop.files(), LocalStore(shop.store)
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / "weights.safetensors").write_bytes(b"\0" * 5000)
        tree = save_tree(store, tmp_path / "weights")
        remember(store, Stage("train", 4), {"rate": 7}, {"tree": tree}, 1.0)
        left = "ledger/orchard/.writing-0123"  # by a killed writer
        (shop.store / left).write_bytes(b"half")
        littered = shop.files()
        young = shop.promptmint("gc", "--delete", "--json").json
        assert young["keys"] == [] and young["unfinished"] == []
        self.age(shop)
        told = shop.promptmint("gc")
        assert told.code == 0 and told.err == "" and "Nothing was removed. 3 files, 5," in told.out
        assert "and 1 unfinished write, 4 bytes would be, with --delete" in told.out
        assert shop.files() == littered
        removed = shop.promptmint("gc", "--delete", "--json").json
        assert [each["name"] for each in removed["unfinished"]] == [left]
        assert removed["deleted"] and {left, *removed["keys"]} == littered.keys() - needed.keys()
        assert shop.files() == needed
        assert shop.promptmint("run", "orchard.toml", "--json").json["unchanged"]

    def age(self, shop: Any) -> None:
        """Make everything in the store a month old."""
        moment = time.time() - MONTH_S
        for path in shop.store.rglob("*"):
            os.utime(path, (moment, moment))


def test_a_prompt_is_not_promoted_over_a_champion_that_it_was_not_compared_with(
    shop: Any, first: dict[str, Any]
) -> None:
    shop.edit("artifact_bytes = 20_000", "artifact_bytes = 10")
    assert shop.promptmint("run", "orchard.toml", "--json").json["version"] == 2
    shop.edit("artifact_bytes = 10", "artifact_bytes = 19_000")
    command = [sys.executable, "-c", OVERTAKEN]
    done = subprocess.run(command, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert (record["verdict"], record["version"]) == ("passed", 3)
    assert record["not_promoted"].startswith("'ann' wrote entry 4 of 'orchard' first (promoted version 2 at ")
    assert record["aliases"] == {"champion": 2, "challenger": 3}
    again = shop.promptmint("run", "orchard.toml")
    assert again.out.startswith("Unchanged: ") and "Not promoted: 'ann' wrote entry 4" in again.out
