"""The main job, end to end, as a stranger runs it: minted, proven, registered, promoted, pulled, minted again.

One story in one workshop, told in order: each class finds the workshop as the one before left it.
"""

from __future__ import annotations

import json
import re
import site
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlflow_config import names, tracking
from pipelines.digests import digest_bytes
from pipelines.errors import ArtifactError, BaseModelError
from pipelines.runs import METHODS
from pipelines.store.trees import object_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KEYS = {
    "recipe", "run_key", "verdict", "reason", "version", "prompt_digest", "base_digest", "data_digest", "recipe_digest",
    "scores", "gates", "seconds", "cost", "unchanged", "data", "power", "artifact", "aliases", "flow_run", "baselines",
    "seen_by_champion", "start", "tokens",
}  # fmt: skip
FIGURES = {"accuracy", "low", "high", "macro_f1", "ece", "n", "trainable_params", "artifact_bytes", "train_seconds"}
DIGEST = re.compile("[0-9a-f]{64}")
NOISE = re.compile(r"(?i)warning|traceback|error|exception|deprecat|\| info|prefect|mlflow|great_expectations")
TEXTS = ["we saw cider and the orchard peel", "the anchor was near my sail and rudder", "crunchy core"]
SERVE = """
import sys
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/orchard@champion")
print("ANSWER", model.predict(pandas.DataFrame({"text": sys.argv[1:]})).to_json(orient="records"))
print("PIPELINES", sorted(name for name in sys.modules if name.split(".")[0] in ("pipelines", "promptmint")))
"""


@pytest.fixture(scope="module")
def shop(workshop: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return workshop(tmp_path_factory.mktemp("story") / "workshop")


@pytest.fixture(scope="module")
def first(shop: Any) -> Any:
    """The first run of all."""
    return shop.promptmint("run", "orchard.toml", "--json")


@pytest.fixture(scope="module")
def pulled(shop: Any, first: Any) -> Path:
    """The champion's artifact, pulled by a serving team."""
    return shop.folder / shop.promptmint("pull", "orchard@champion", "--to", "pulled", "--json").json["folder"]


@pytest.fixture
def in_registry(shop: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """MLflow's own aliases of the recipe, `{alias: version}`."""
    monkeypatch.setenv("PROMPTMINT_HOME", str(shop.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def aliases() -> dict[str, str]:
        with tracking.connected() as client:
            found = client.get_registered_model("orchard").aliases
            return {alias: str(version) for alias, version in found.items()}

    return aliases


def trained(shop: Any) -> set[str]:
    """The trainings that the store remembers."""
    return {path.name for path in (shop.store / "memo" / "train").iterdir()}


def stored(shop: Any, tree: str, name: str) -> Path:
    """A file of a tree in the store."""
    digest = json.loads((shop.store / "trees" / tree[:2] / f"{tree}.json").read_bytes())["files"][name]
    return Path(shop.store / "objects" / digest[:2] / digest)


def splits(shop: Any, record: dict[str, Any]) -> dict[str, str]:
    """`{text: side}` of a run's examples."""
    table = pd.read_parquet(stored(shop, record["data"]["tree"], "accepted.parquet"))
    return dict(zip(table["text"], table["split"], strict=True))


class TestFirstRun:
    def test_it_ends_well_with_one_json_object(self, first: Any) -> None:
        assert first.code == 0, first.err
        assert first.json.keys() == KEYS
        assert len(first.out.splitlines()) == 1

    def test_a_person_sees_its_stages_and_no_noise(self, first: Any) -> None:
        assert not NOISE.search(first.err), first.err
        stages = [line.split()[0] for line in first.err.splitlines() if line.strip()]
        assert [stage for stage in stages if stage != "pin"] == [
            "snapshot", "validate", "tokenize", "train", "score", "judge", "register"
        ]  # fmt: skip

    def test_everything_is_named_by_its_digest(self, first: Any) -> None:
        named = {key: first.json[key] for key in KEYS if key.endswith("_digest") or key in ("run_key", "artifact")}
        assert all(DIGEST.fullmatch(digest) for digest in named.values()), named
        assert len(set(named.values())) == len(named)

    def test_every_method_was_scored_and_those_not_asked_for_are_null(self, first: Any) -> None:
        scores = first.json["scores"]
        assert scores.keys() == set(METHODS)
        assert scores.pop("zero_shot") is None and scores.pop("adapters") is None
        for each in scores.values():
            assert each.keys() == FIGURES
            assert 0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1
            assert each["n"] == first.json["data"]["splits"]["test"]
        # 2 layers x keys and values x 4 tokens x 32 wide, and a head of 2 x 32 weights and 2 biases
        assert scores["prompt"]["trainable_params"] == 2 * 2 * 4 * 32 + 2 * 32 + 2
        assert scores["prompt"]["accuracy"] > 0.7
        assert scores["prompt"]["artifact_bytes"] < 20_000 < scores["full"]["artifact_bytes"]

    def test_its_page_is_kept_in_mlflow_without_texts_and_linked_in_prefect(self, shop: Any, first: Any) -> None:
        (page,) = (shop.home / "mlartifacts").rglob("report.html")
        assert (page.parent / "data_docs" / "index.html").is_file()
        source = page.read_text()
        assert f"{first.json['scores']['prompt']['accuracy']:.1%}".replace("%", "\N{NO-BREAK SPACE}%") in source
        assert "By label" in source and first.json["base_digest"] in source
        said = splits(shop, first.json)
        assert not any(text in source for text in said)
        with sqlite3.connect(shop.home / "prefect" / "prefect.db") as prefect:
            ((link,),) = prefect.execute("select data from artifact where key = 'orchard-page'").fetchall()
        assert page.as_uri() in link and "orchard version 1: passed" in link

    def test_its_page_is_told_with_texts_to_who_may_read_the_store(self, shop: Any, first: Any) -> None:
        done = shop.promptmint("report", "orchard@1", "--html", "page.html", "--json")
        assert done.code == 0, done.err
        assert done.json["run_key"] == first.json["run_key"]
        wrong = round(first.json["scores"]["prompt"]["n"] * (1 - first.json["scores"]["prompt"]["accuracy"]))
        source = (shop.folder / "page.html").read_text()
        assert wrong == 0 or any(text in source for text, side in splits(shop, first.json).items() if side == "test")

    def test_its_gates_passed_with_their_numbers(self, first: Any) -> None:
        found = first.json
        assert found["verdict"] == "passed" and found["reason"].startswith("passed: ")
        lora, champion, size, parameters = found["gates"]
        assert {"name", "verdict", "estimate", "low", "high", "threshold"} <= lora.keys()
        assert lora["name"] == "non-inferior to lora" and lora["low"] > lora["threshold"] == -40
        ahead = 100 * (found["scores"]["prompt"]["accuracy"] - found["scores"]["lora"]["accuracy"])
        assert lora["estimate"] == pytest.approx(ahead, abs=1e-3)
        assert champion["reason"] == "there is no champion on these labels yet"
        assert size["estimate"] == found["scores"]["prompt"]["artifact_bytes"] and size["threshold"] == 20_000
        assert parameters["estimate"] == found["scores"]["prompt"]["trainable_params"]

    def test_bad_rows_went_to_the_quarantine_and_it_is_kept(self, shop: Any, first: Any) -> None:
        data = first.json["data"]
        assert data["rows"] | {"leaks_dropped": 0} == {
            "read": 403, "accepted": 400, "quarantined": 3, "leaks_dropped": 0, "duplicates": 0
        }  # fmt: skip
        tree = json.loads((shop.store / "trees" / data["tree"][:2] / f"{data['tree']}.json").read_bytes())["files"]
        digest = tree["quarantine.parquet"]
        table = pd.read_parquet(shop.store / "objects" / digest[:2] / digest)
        assert list(table["about"]) == ["apples", "pears", "boats"]
        assert list(table["source_row"]) == [40, 41, 42]

    def test_automatic_promotion_made_it_champion_everywhere(
        self, shop: Any, first: Any, in_registry: Callable[[], dict[str, str]]
    ) -> None:
        found = shop.promptmint("status", "orchard", "--json").json
        assert found.keys() == {"name", "champion", "challenger", "history", "spent"}
        assert (found["name"], found["champion"], found["challenger"]) == ("orchard", 1, None)
        assert [entry["action"] for entry in found["history"]] == ["registered", "promoted"]
        assert first.json["version"] == 1 and first.json["aliases"] == {"champion": 1, "challenger": None}
        assert in_registry() == {"champion": "1"}

    def test_the_version_carries_its_digests_as_tags(self, first: Any, in_registry: Any) -> None:
        with tracking.connected() as client:
            tags = client.get_model_version("orchard", "1").tags
            run = client.get_run(client.get_model_version("orchard", "1").run_id)
        assert tags[names.TAG_PROMPT] == first.json["prompt_digest"]
        assert tags[names.TAG_BASE] == first.json["base_digest"]
        assert tags[names.TAG_RUN_KEY] == first.json["run_key"]
        assert run.data.metrics["prompt/accuracy"] == pytest.approx(first.json["scores"]["prompt"]["accuracy"])
        assert run.data.params["prompt.method"] == "p-tuning-v2" and run.info.status == "FINISHED"


class TestTheSameAgain:
    def test_it_tells_the_earlier_run_at_once_and_writes_nothing(
        self, shop: Any, first: Any, figure: Callable[[str], None]
    ) -> None:
        before = shop.files()
        again = shop.promptmint("run", "orchard.toml", "--json", PYTHONPROFILEIMPORTTIME="1")
        assert again.code == 0
        assert again.json == {**first.json, "unchanged": True}
        figure(f"unchanged, told by the command line: {again.processor_s:.1f} s of a processor (5 are promised)")
        assert again.processor_s < 5
        imported = {
            line.rpartition("|")[2].strip() for line in again.err.splitlines() if line.startswith("import time")
        }
        assert "promptmint" in imported
        assert not imported & {"prefect", "torch", "mlflow", "pandas", "transformers", "great_expectations", "datasets"}
        assert shop.files() == before

    def test_a_person_is_told_so_and_sees_the_table(self, shop: Any, first: Any) -> None:
        again = shop.promptmint("run", "orchard.toml")
        assert again.code == 0 and again.err == ""
        assert again.out.startswith("Unchanged: ")
        assert f"{100 * first.json['scores']['prompt']['accuracy']:.1f}" in again.out
        assert "Registered: orchard version 1, now champion" in again.out
        assert "\x1b" not in again.out


class TestServing:
    def test_predict_answers_every_text(self, shop: Any, first: Any) -> None:
        found = shop.promptmint("predict", "orchard@champion", *TEXTS, "--json")
        assert found.code == 0 and found.err == "", found.err
        answers = found.json["answers"]
        assert [answer["text"] for answer in answers] == TEXTS
        assert [answer["label"] for answer in answers][:2] == ["apples", "boats"]
        assert all(0.5 <= answer["probability"] <= 1 for answer in answers)

    def test_verify_replays_the_proof(self, shop: Any, first: Any) -> None:
        found = shop.promptmint("verify", "orchard@1", "--json").json
        assert found["prompt_digest"] == first.json["prompt_digest"]
        assert found["base_digest"] == first.json["base_digest"]
        assert 0 <= found["largest_difference"] < 1e-3

    def test_a_pulled_prompt_is_whole_and_small(self, pulled: Path, first: Any) -> None:
        from pipelines.prompts.artifact import read_prompt

        files = {path.name for path in pulled.iterdir()}
        assert files == {
            "prompt.json", "prompt.safetensors", "proof.json", "proof.safetensors", "provenance.json"
        }  # fmt: skip
        assert read_prompt(pulled, first.json["prompt_digest"]).labels == ["apples", "boats"]
        assert [path.name for path in pulled.parent.iterdir()] == ["orchard-v1"]

    def test_an_export_is_proven_in_peft_and_names_its_base(self, shop: Any, first: Any) -> None:
        found = shop.promptmint("export", "orchard@champion", "--to", "exports", "--layout", "peft", "--json")
        assert found.code == 0 and found.err == "", found.err
        assert found.json["folder"] == "exports/orchard-v1-peft" and 0 <= found.json["largest_difference"] < 1e-3
        card = json.loads((shop.folder / found.json["folder"] / "promptmint.json").read_text())
        assert card["base"]["digest"] == first.json["base_digest"]
        assert card["prompt_digest"] == first.json["prompt_digest"]
        again = shop.promptmint("export", "orchard@1", "--to", "exports", "--layout", "peft")
        assert again.out.startswith("exports/orchard-v1-peft: answers there as it was proven to, within ")

    def test_a_layout_that_cannot_express_it_leaves_nothing(self, shop: Any, first: Any) -> None:
        refused = shop.promptmint("export", "orchard@1", "--to", "embeds", "--layout", "prompt-embeds")
        assert refused.code == 8 and refused.out == ""
        assert refused.err.startswith("ArtifactError: ") and "'p-tuning-v2'" in refused.err
        assert list((shop.folder / "embeds").iterdir()) == []

    @pytest.mark.parametrize("name", ["prompt.safetensors", "prompt.json", "proof.safetensors", "proof.json"])
    def test_a_truncated_prompt_is_refused(
        self, shop: Any, pulled: Path, first: Any, tmp_path: Path, name: str
    ) -> None:
        from pipelines.inference.predictor import load_predictor

        cut = tmp_path / "cut"
        cut.mkdir()
        for path in pulled.iterdir():
            content = path.read_bytes()
            (cut / path.name).write_bytes(content[: len(content) // 2] if path.name == name else content)
        with pytest.raises(ArtifactError, match=re.escape(name)):
            load_predictor(cut, shop.folder / "base", first.json["prompt_digest"])

    def test_another_base_is_refused(self, shop: Any, pulled: Path, first: Any, tmp_path: Path) -> None:
        from pipelines.inference.predictor import load_predictor

        other = tmp_path / "base"
        other.mkdir()
        for path in (shop.folder / "base").iterdir():
            content = bytearray(path.read_bytes())
            if path.name == "model.safetensors":
                content[-1] ^= 1
            (other / path.name).write_bytes(content)
        assert load_predictor(pulled, shop.folder / "base", first.json["prompt_digest"]).predict(TEXTS)
        with pytest.raises(BaseModelError, match=r"model\.safetensors has SHA-256"):
            load_predictor(pulled, other, first.json["prompt_digest"])

    def test_a_spoilt_base_in_the_cache_is_fetched_anew_and_one_in_the_store_is_refused(
        self, shop: Any, first: Any
    ) -> None:
        weights = shop.home / "cache" / first.json["base_digest"] / "model.safetensors"
        whole = weights.read_bytes()
        stored = shop.home / "store" / object_key(digest_bytes(whole))
        spoilt = whole[:-1] + bytes([whole[-1] ^ 1])
        weights.write_bytes(spoilt)
        assert shop.promptmint("predict", "orchard@champion", TEXTS[0]).code == 0
        assert weights.read_bytes() == whole
        weights.write_bytes(spoilt)
        stored.write_bytes(spoilt)
        refused = shop.promptmint("predict", "orchard@champion", TEXTS[0])
        stored.write_bytes(whole)
        assert refused.code == 6 and refused.out == ""
        assert refused.err.startswith("CorruptObject: ") and stored.name in refused.err
        assert shop.promptmint("predict", "orchard@champion", TEXTS[0]).code == 0

    def test_the_packaged_model_answers_where_nobody_knows_promptmint(
        self, shop: Any, first: Any, tmp_path: Path
    ) -> None:
        """In a fresh process without this repository, whose own `pipelines` raises, and with an empty cache."""
        for name in ("pipelines", "promptmint"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('this is the host\\'s own {name}')\n")
        (tmp_path / "serve.py").write_text(SERVE)
        environment = shop.environment(
            PYTHONPATH=site.getsitepackages()[0], MLFLOW_TRACKING_URI=f"sqlite:///{shop.home}/mlflow.db",
            PROMPTMINT_HOME=str(tmp_path / "home"), MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
        )  # fmt: skip
        # -S: site-packages are on the path, but what a .pth file there adds (an editable promptmint) is not.
        command = [sys.executable, "-S", "serve.py", *TEXTS]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        lines = dict(
            line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("ANSWER", "PIPELINES"))
        )
        asked = shop.promptmint("predict", "orchard@champion", *TEXTS, "--json").json["answers"]
        served = json.loads(lines["ANSWER"])
        assert [row["label"] for row in served] == [answer["label"] for answer in asked]
        assert [round(row["probability"], 4) for row in served] == [answer["probability"] for answer in asked]
        assert lines["PIPELINES"] == "[]"


class TestOtherGates:
    def test_nothing_is_trained_again_and_a_refusal_can_fail_the_command(
        self, shop: Any, first: Any, in_registry: Callable[[], dict[str, str]]
    ) -> None:
        known = trained(shop)
        shop.edit("artifact_bytes = 20_000", "artifact_bytes = 10")
        found = shop.promptmint("run", "orchard.toml", "--json", "--fail-on-refusal")
        assert found.code == 3, found.err
        assert found.json["verdict"] == "refused" and not found.json["unchanged"]
        assert re.fullmatch(r"refused: 4,\d{3} artifact bytes of 10 allowed.*", found.json["reason"])
        assert found.json["prompt_digest"] == first.json["prompt_digest"]
        assert found.json["run_key"] != first.json["run_key"]
        assert trained(shop) == known
        # The champion is the same prompt on the same examples.
        assert found.json["scores"]["champion"]["accuracy"] == found.json["scores"]["prompt"]["accuracy"]
        assert found.json["version"] == 2 and found.json["aliases"] == {"champion": 1, "challenger": None}
        assert in_registry() == {"champion": "1"}

    def test_a_refusal_is_a_result_where_nobody_asked_to_fail(self, shop: Any) -> None:
        again = shop.promptmint("run", "orchard.toml", "--json")
        assert again.code == 0 and again.json["unchanged"] and again.json["verdict"] == "refused"
        assert shop.promptmint("run", "orchard.toml", "--fail-on-refusal").code == 3


class TestDecisions:
    def test_what_did_not_pass_is_not_promoted(self, shop: Any) -> None:
        before = shop.files()
        refused = shop.promptmint("promote", "orchard", "2", "--why", "I like it")
        assert refused.code == 10 and refused.out == ""
        assert refused.err.startswith("LedgerError: Version 2 of 'orchard' is 'refused'")
        assert len(refused.err.splitlines()) == 1
        assert shop.files() == before

    def test_it_is_with_force_and_a_reason(self, shop: Any, in_registry: Callable[[], dict[str, str]]) -> None:
        done = shop.promptmint(
            "promote", "orchard", "2", "--why", "size is no matter", "--who", "ada", "--force", "--json"
        )
        assert done.code == 0 and done.err == "", done.err
        assert done.json == {"name": "orchard", "champion": 2, "challenger": None}
        last = shop.promptmint("status", "orchard", "--json").json["history"][-1]
        assert (last["action"], last["version"], last["who"], last["why"]) == (
            "promoted",
            2,
            "ada",
            "size is no matter",
        )
        assert in_registry() == {"champion": "2"}

    def test_and_rolled_back(self, shop: Any, in_registry: Callable[[], dict[str, str]]) -> None:
        done = shop.promptmint("rollback", "orchard", "--why", "size matters", "--who", "ada")
        assert (done.code, done.out, done.err) == (0, "orchard: champion is version 1\n", "")
        assert in_registry() == {"champion": "1"}
        status = shop.promptmint("status", "orchard")
        assert "orchard: champion 1, challenger none" in status.out and "size matters" in status.out


class TestMoreData:
    def test_it_is_trained_anew_and_no_example_changes_sides(
        self, shop: Any, first: Any, rows: Callable[[int, int], list[tuple[str, str]]],
        in_registry: Callable[[], dict[str, str]],
    ) -> None:  # fmt: skip
        known, before = trained(shop), splits(shop, first.json)
        shop.edit("artifact_bytes = 10", "artifact_bytes = 20_000")
        shop.edit('policy = "automatic"', 'policy = "manual"')
        with shop.data.open("a") as file:
            file.writelines(f"{text} after all,{label}\n" for text, label in rows(120, 7))
        found = shop.promptmint("run", "orchard.toml")
        assert found.code == 0, found.err
        assert not NOISE.search(found.err + found.out), found.err + found.out
        record = shop.promptmint("run", "orchard.toml", "--json").json
        assert record["unchanged"] and record["data_digest"] != first.json["data_digest"]
        assert len(trained(shop) - known) == 4
        card = json.loads(stored(shop, record["artifact"], "prompt.json").read_bytes())
        assert card["start"] == record["start"]["prompt"] == first.json["prompt_digest"], "it starts from the champion"
        after = splits(shop, record)
        assert before.items() <= after.items() and len(after) == len(before) + 120
        assert f"Verdict: {record['verdict']}: " in found.out
        for name in ("Soft prompt", "Champion", "LoRA", "Full fine-tuning", "Head only"):
            assert name in found.out
        # Who passed waits for a decision: the policy is manual now.
        assert record["version"] == 3
        assert record["aliases"] == {"champion": 1, "challenger": 3 if record["verdict"] == "passed" else None}
        assert in_registry() == {k: str(v) for k, v in record["aliases"].items() if v is not None}
