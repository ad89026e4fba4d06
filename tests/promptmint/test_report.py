"""`promptmint report`: which run a reference stands for, and the file that is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.errors import LedgerError, NotInStore, PromptmintError, RegistryError, StoreError
from pipelines.promotion import ledger
from pipelines.runs import finish
from pipelines.store.opening import the_ledger, the_store
from promptmint.cli import app
from promptmint.report import write_run

invoke = CliRunner().invoke


@pytest.fixture
def runs() -> None:
    """Two versions of `tickets`, the first of them champion, and a later run that was refused for its data."""
    for key, version, at in (("a", 1, "2026-11-01"), ("c", 2, "2026-11-02"), ("b", None, "2026-11-03")):
        record: dict[str, Any] = {
            "recipe": "tickets", "run_key": key * 64, "verdict": "passed" if version else "refused",
            "reason": "why not", "version": version, "base_digest": "d" * 64,
            "data_digest": "e" * 64, "recipe_digest": "f" * 64, "at": at,
        }  # fmt: skip
        finish(the_store(), record)
        if version:
            ledger.register(
                the_ledger(), "tickets", version, prompt_digest="0" * 64, verdict="passed", run_key=key * 64, who="-",
                why="-",
            )  # fmt: skip
    ledger.promote(the_ledger(), "tickets", 1, who="ada", why="first")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("reference", "key"),
    [("tickets", "b"), ("tickets@2", "c"), ("tickets@champion", "a"), ("tickets@challenger", "c")],
)
def test_a_reference_stands_for_a_run(reference: str, key: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    done = invoke(app, ["report", reference, "--html", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["run_key"] == key * 64 and told["recipe"] == "tickets" and told["html"] == str(out)
    assert told["bytes"] == out.stat().st_size and key * 12 in out.read_text()
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("letters", NotInStore, "no run of 'letters' .* runs of 'tickets'"),
        ("tickets@9", LedgerError, "no version 9 of 'tickets'; there are '1', '2'"),
        ("letters@champion", RegistryError, "'letters' has no champion"),
        ("../tickets", RegistryError, "stands for no run"),
    ],
)
def test_what_stands_for_no_run_is_refused(
    reference: str, error: type[PromptmintError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        write_run(reference, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.usefixtures("runs")
def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="Cannot write 'folder'"):
        write_run("tickets", tmp_path / "folder")


@pytest.mark.usefixtures("runs")
def test_the_fleet_is_every_recipe(tmp_path: Path) -> None:
    out = tmp_path / "fleet.html"
    done = invoke(app, ["report", "--fleet", "--html", str(out)])
    assert done.exit_code == 0 and re.search(r"fleet\.html: [\d,]+ bytes", done.output.replace("\n", ""))
    assert '<tr id="tickets">' in out.read_text()


@pytest.mark.parametrize("arguments", [[], ["tickets", "--fleet"]])
def test_it_is_one_recipe_or_the_fleet(arguments: list[str]) -> None:
    assert invoke(app, ["report", *arguments, "--html", "page.html"]).exit_code == 2
