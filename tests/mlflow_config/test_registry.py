"""Registering, aliases and references against a real MLflow on SQLite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_config import names, registry
from mlflow_config.package import requirements
from mlflow_config.tracking import connected, experiment_id
from pipelines.errors import RegistryError, TransientError

pytestmark = pytest.mark.usefixtures("mlflow_home")


def aliases() -> dict[str, int]:
    with connected() as client:
        return {alias: int(version) for alias, version in client.get_registered_model("tickets").aliases.items()}


def register(artifact: Path, record: dict[str, Any], **changes: Any) -> int:
    return registry.register("tickets", artifact, {**record, **changes}, {"report.md": b"# Report"})


def test_a_run_is_registered_once_however_often_it_is_asked_for(artifact: Path, record: dict[str, Any]) -> None:
    assert register(artifact, record) == register(artifact, record) == 1
    assert register(artifact, record, run_key="0" * 64, verdict="refused") == 2
    assert register(artifact, record) == 1
    with connected() as client:
        assert len(client.search_model_versions("name = 'tickets'")) == 2
    assert registry.registered() == ["tickets"]


def test_two_processes_at_one_run_make_one_version(
    artifact: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look and find nothing before either is done: one is a whole registration inside the other."""
    looked: list[int] = []
    look = registry._version_of_run

    def sooner(*asked: Any) -> int | None:
        found = look(*asked)
        looked.append(1)
        if len(looked) == 1:
            assert found is None and register(artifact, record) == 1
        return found

    monkeypatch.setattr(registry, "_version_of_run", sooner)
    assert register(artifact, record) == 1
    with connected() as client:
        assert [int(version.version) for version in client.search_model_versions("name = 'tickets'")] == [1]
    assert register(artifact, record) == 1


def test_what_is_registered_can_be_found_again(artifact: Path, record: dict[str, Any], mlflow_home: Path) -> None:
    assert registry.version_tags("tickets", register(artifact, record)) == {
        names.TAG_VERDICT: "passed", names.TAG_RUN_KEY: "a" * 64, names.TAG_PROMPT: "b" * 64,
        names.TAG_BASE: "c" * 64, names.TAG_DATA: "d" * 64, names.TAG_RECIPE: "e" * 64, names.TAG_ARTIFACT: "f" * 64,
    }  # fmt: skip
    with connected() as client:
        run = client.get_run(client.get_model_version("tickets", "1").run_id)
        curve = client.get_metric_history(run.info.run_id, "prompt/loss")
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "prompt.method": "p-tuning-v2", "prompt.tokens": "4", "data.labels": "['a', 'b']"
    }  # fmt: skip
    assert run.data.metrics["prompt/accuracy"] == 0.75 and run.data.metrics["prompt/validation_accuracy"] == 0.75
    assert [point.step for point in sorted(curve, key=lambda point: point.step)] == list(range(1, 251))
    assert list((mlflow_home / "mlartifacts").rglob("report.md"))
    assert not list((mlflow_home / "mlartifacts").rglob("*.pkl"))


def test_a_file_is_kept_with_the_run_of_a_version(artifact: Path, record: dict[str, Any]) -> None:
    version = register(artifact, record)
    made = {**record, "version": version}
    registry.attach(made, "report.html", b"an earlier page")
    link = registry.attach(made, "report.html", b"a page")
    assert link.startswith("file:///") and link.endswith("/report.html")
    assert Path(link.removeprefix("file://")).read_bytes() == b"a page"
    with connected() as client:
        run_id = client.get_model_version("tickets", str(version)).run_id
        assert {"report.md", "report.html"} <= {file.path for file in client.list_artifacts(run_id)}
    with pytest.raises(RegistryError):
        registry.attach({**record, "version": version + 1}, "report.html", b"a page")


def test_a_run_that_was_refused_before_training_is_one_in_mlflow_too(record: dict[str, Any]) -> None:
    refused = {**record, "trained": {}, "version": None, "verdict": "refused", "reason": "refused: no rows are left"}
    first = registry.attach(refused, "report.html", b"a page")
    assert registry.attach(refused, "report.html", b"a later page") == first
    assert Path(first.removeprefix("file://")).read_bytes() == b"a later page"
    with connected() as client:
        (run,) = client.search_runs([experiment_id(client)])
        assert client.search_model_versions("name = 'tickets'") == []
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.note.content"] == "refused: no rows are left"


def test_a_folder_is_kept_with_the_run_of_a_version(artifact: Path, record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "docs" / "static").mkdir(parents=True)
    (tmp_path / "docs" / "index.html").write_text("docs")
    (tmp_path / "docs" / "static" / "style.css").write_text("style")
    made = {**record, "version": register(artifact, record)}
    link = registry.attach_folder(made, tmp_path / "docs", "index.html", "data_docs")
    assert link.endswith("/data_docs/index.html")
    index = Path(link.removeprefix("file://"))
    assert index.read_text() == "docs" and (index.parent / "static" / "style.css").read_text() == "style"


@pytest.mark.parametrize(("template", "columns"), [("{text}", ["text"]), ("{text}{sep}{pair}", ["text", "pair"])])
def test_the_packaged_model_says_what_it_is_asked_with(
    artifact: Path, record: dict[str, Any], template: str, columns: list[str]
) -> None:
    (artifact / "prompt.json").write_text(json.dumps({"template": {"text": template}, "head": {"kind": "linear"}}))
    register(artifact, record)
    with connected() as client:
        info = mlflow.models.get_model_info(client.get_model_version("tickets", "1").source)
    assert info.signature.inputs.input_names() == columns


def test_a_registration_that_broke_off_is_done_anew(
    artifact: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "log_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(artifact, record)
    with connected() as client:
        assert not client.search_model_versions("name = 'tickets'")
    assert register(artifact, record) == 1


def test_aliases_become_what_the_ledger_says(artifact: Path, record: dict[str, Any]) -> None:
    for number in range(3):
        register(artifact, record, run_key=f"{number:064}")
    registry.project("tickets", champion=1, challenger=3)
    assert aliases() == {"champion": 1, "challenger": 3}
    registry.project("tickets", champion=3, challenger=None)
    registry.project("tickets", champion=3, challenger=None)
    assert aliases() == {"champion": 3}
    assert registry.resolve("tickets", "champion") == 3
    registry.project("tickets", champion=None, challenger=2)
    assert aliases() == {"challenger": 2}


def test_what_cannot_be_resolved_is_told_with_what_there_is(artifact: Path, record: dict[str, Any]) -> None:
    register(artifact, record)
    with pytest.raises(RegistryError, match=r"No soft prompt 'letters' is registered\. Registered: \['tickets'\]"):
        registry.resolve("letters", "champion")
    with pytest.raises(RegistryError, match=r"'tickets' has no 'champion'; it has {}\. Promote a version first"):
        registry.resolve("tickets", "champion")
    with pytest.raises(RegistryError, match=r"There is no version 9 of 'tickets'"):
        registry.version_tags("tickets", 9)
    with pytest.raises(RegistryError, match=r"There is no version 1 of 'letters'"):
        registry.version_tags("letters", 1)
    with connected() as client:
        client.create_registered_model("foreign")
        client.create_model_version("foreign", source="file:///nowhere")
    with pytest.raises(RegistryError, match="no soft prompt of promptmint's: it has no tag"):
        registry.version_tags("foreign", 1)


def test_a_refusal_of_mlflow_is_not_tried_again(artifact: Path, record: dict[str, Any]) -> None:
    register(artifact, record)
    with pytest.raises(RegistryError) as refused:
        registry.project("tickets", champion=7, challenger=None)
    assert not isinstance(refused.value, TransientError)


def test_the_packaged_model_asks_for_versions_that_an_index_knows() -> None:
    asked = dict(line.split("==") for line in requirements())
    assert asked.keys() >= {"mlflow", "torch", "transformers", "safetensors", "boto3"}
    assert not [version for version in asked.values() if "+" in version], "a build of this machine's own"
