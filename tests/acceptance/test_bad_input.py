"""What goes wrong on a person's side: one clear message, the exit code that belongs to it, and nothing half-written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.bases.pin import pin_base
from pipelines.recipe import load_recipe
from pipelines.store.local import LocalStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def stocked(fresh: Any) -> Any:
    """A workshop whose base is in the store already."""
    pin_base(LocalStore(fresh.store), load_recipe(fresh.recipe).base, fresh.folder, fresh.home / "work")
    return fresh


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that has room for a base and for little else."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=768k tmpfs '{folder}'"
    mounted = subprocess.run(["/bin/sh", "-c", mount], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"A FULL DISK WAS NOT TESTED: mounting is not permitted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


def refused(ended: Any, code: int, kind: str, *said: str) -> None:
    """Check that a command ended with this code and one message of this kind that says these things."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    message = ended.err[ended.err.index(f"{kind}: ") :]
    assert "Traceback" not in ended.err
    assert ended.err.count("Error: ") == 1
    for each in said:
        assert each in message, message


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


class TestRecipe:
    def test_an_unknown_key_is_named_with_those_there_are(self, fresh: Any) -> None:
        fresh.edit('method = "p-tuning-v2"', 'methd = "p-tuning-v2"')
        ended = fresh.promptmint("run", "orchard.toml", "--json")
        refused(ended, 2, "RecipeError", "prompt.methd: unknown key. Known here:", "'method'", "prompt.method: missing")
        assert not fresh.home.exists()

    def test_a_missing_recipe_is_named_with_those_beside_it(self, fresh: Any) -> None:
        refused(fresh.promptmint("run", "orchid.toml"), 2, "RecipeError", "orchid.toml", "'orchard.toml'")

    def test_wrong_usage_is_told_in_a_few_lines(self, fresh: Any) -> None:
        ended = fresh.promptmint("promote", "orchard", "1")
        assert ended.code == 2 and "--why" in ended.err and "Traceback" not in ended.err

    def test_a_recipe_that_nobody_knows_is_named_with_those_there_are(self, fresh: Any) -> None:
        refused(fresh.promptmint("status", "orchid"), 10, "LedgerError", "'orchid'", "(none)")

    @pytest.mark.parametrize("reference", ["orchard@latest", "orchard@../1"])
    def test_what_is_no_reference_is_refused(self, fresh: Any, reference: str) -> None:
        refused(fresh.promptmint("pull", reference), 9, "RegistryError", repr(reference), "NAME@champion")
        assert list(fresh.folder.glob("*-v*")) == []


class TestData:
    def test_a_missing_file_is_named_with_what_lies_there(self, stocked: Any) -> None:
        stocked.data.rename(stocked.folder / "speech.csv")
        refused(stocked.promptmint("run", "orchard.toml"), 4, "DataError", "talk.csv", "'speech.csv'")

    def test_bytes_that_are_not_utf8_are_told_with_their_line(self, stocked: Any) -> None:
        with stocked.data.open("ab") as file:
            file.write("un pépin,apples\n".encode("latin-1"))
        ended = stocked.promptmint("run", "orchard.toml", "--json")
        refused(ended, 4, "DataError", "'talk.csv' is not utf-8: line 405", 'encoding = "latin-1"')
        assert half_written(stocked.store) == []

    def test_too_many_strange_labels_refuse_the_set_and_are_kept(self, stocked: Any) -> None:
        with stocked.data.open("a") as file:
            file.writelines(f"a pear number {number},pears\n" for number in range(40))
        ended = stocked.promptmint("run", "orchard.toml", "--json")
        assert ended.code == 0, ended.err
        found = ended.json
        assert found["verdict"] == "refused" and found["version"] is None and found["prompt_digest"] is None
        assert "43 of 443 rows (9.7%) were quarantined" in found["reason"]
        assert found["data"]["reasons"]["about is not one of the 2 labels"] == 41
        assert set(found["scores"].values()) == {None} and found["gates"] == []
        assert not (stocked.store / "memo" / "train").exists()
        assert len(list((stocked.home / "mlartifacts").rglob("report.html"))) == 1  # its page, in MLflow as every run's
        import pandas as pd

        from pipelines.store.trees import load_tree

        tree = load_tree(LocalStore(stocked.store), found["data"]["tree"], stocked.folder / "seen")
        assert len(pd.read_parquet(tree / "quarantine.parquet")) == 43
        told = stocked.promptmint("run", "orchard.toml", "--fail-on-refusal")
        assert told.code == 3 and "Unchanged" in told.out and "9.7%" in told.out

    def test_too_few_test_rows_for_the_power_asked_for_refuse_before_any_training(self, stocked: Any) -> None:
        stocked.edit("[gates]\n", "[gates]\nmin_power = 0.9\n")
        stocked.edit('to = "lora", margin = 40.0', 'to = "lora", margin = 2.0')
        ended = stocked.promptmint("run", "orchard.toml", "--json")
        assert ended.code == 0, ended.err
        found = ended.json
        assert found["verdict"] == "refused" and found["version"] is None and found["gates"] == []
        lora, champion = found["power"]
        assert lora["power"] < 0.9 < champion["power"] and lora["rows"] == found["data"]["splits"]["test"]
        assert f"about {lora['rows_needed']:,} would make it 90 %" in found["reason"]
        assert not (stocked.store / "memo" / "train").exists()
        assert len(list((stocked.home / "mlartifacts").rglob("report.html"))) == 1  # its page, in MLflow as every run's
        told = stocked.promptmint("run", "orchard.toml", "--fail-on-refusal")
        assert told.code == 3 and "gates.min_power = 0.9" in told.out


class TestBase:
    def test_a_flipped_byte_is_noticed(self, stocked: Any) -> None:
        weights = stocked.folder / "base" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        ended = stocked.promptmint("run", "orchard.toml")
        refused(ended, 5, "BaseModelError", "changed under its name", "model.safetensors", "give it another name")

    def test_a_missing_one_names_every_source(self, fresh: Any) -> None:
        fresh.edit('sources = ["file://base"]', 'sources = ["file://nowhere", "file://base/tokenizer.json"]')
        refused(fresh.promptmint("run", "orchard.toml"), 5, "BaseModelError", "file://nowhere", "file://base/tokenizer")
        assert not list((fresh.home / "work").iterdir())


class TestStore:
    def test_a_file_in_the_place_of_the_folder_is_told(self, fresh: Any) -> None:
        (fresh.folder / "store").write_text("I am a file")
        ended = fresh.promptmint("run", "orchard.toml", PROMPTMINT_STORE=f"file://{fresh.folder}/store")
        refused(ended, 6, "StoreError", "A file is where a folder should be", "PROMPTMINT_STORE")

    def test_a_full_disk_is_told_and_leaves_nothing_half_written(self, fresh: Any, small_disk: Path) -> None:
        ended = fresh.promptmint("run", "orchard.toml", PROMPTMINT_STORE=f"file://{small_disk}/store")
        refused(ended, 6, "StoreError", "The disk is full: make room")
        assert half_written(small_disk) == []
        store = LocalStore(small_disk / "store")
        from pipelines.digests import digest_bytes

        objects = store.keys("objects/")
        assert objects and all(key.endswith(digest_bytes(store.read(key))) for key in objects)

    def test_a_home_that_is_a_file_is_told(self, fresh: Any) -> None:
        fresh.home.write_text("I am a file")
        ended = fresh.promptmint("run", "orchard.toml", PROMPTMINT_STORE=f"file://{fresh.folder}/store")
        refused(ended, 6, "StoreError", "PROMPTMINT_HOME")

    def test_a_strange_store_is_told(self, fresh: Any) -> None:
        refused(fresh.promptmint("run", "orchard.toml", PROMPTMINT_STORE="ftp://x"), 6, "StoreError", "'ftp://x'")


class TestDoctor:
    def test_all_is_well_in_a_new_place(self, fresh: Any) -> None:
        found = fresh.promptmint("doctor", "--json")
        assert found.code == 0, found.out
        findings = {each["what"]: each for each in found.json["findings"]}
        assert findings.keys() == {"packages", "store", "ledger", "MLflow", "disk", "devices"}
        assert all(each["ok"] for each in findings.values())
        assert "0 soft prompts" in findings["MLflow"]["found"]
        assert list(LocalStore(fresh.store).keys("")) == []

    def test_every_fault_is_told_and_the_rest_is_looked_at(self, fresh: Any) -> None:
        (fresh.folder / "store").write_text("I am a file")
        settings = {"PROMPTMINT_STORE": f"file://{fresh.folder}/store", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
        found = fresh.promptmint("doctor", **settings)
        assert found.code == 1 and "Traceback" not in found.err
        signs = {line[6:].partition(":")[0]: line[:4] for line in found.out.splitlines()}
        assert signs == {
            "packages": "ok  ", "store": "FAIL", "ledger": "FAIL", "MLflow": "FAIL", "disk": "ok  ", "devices": "ok  "
        }  # fmt: skip


@pytest.fixture(scope="module")
def seconds() -> Callable[[Any, list[str]], float]:
    """CPU seconds of a command, the median of three: what a person waits for on a machine with nothing else to do."""
    import os
    import statistics

    def measure(shop: Any, command: list[str]) -> float:
        spent = []
        for _ in range(3):
            process = subprocess.Popen(command, cwd=shop.folder, env=shop.environment(), stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            spent.append(usage.ru_utime + usage.ru_stime)
        return statistics.median(spent)

    return measure


class TestSpeed:
    def test_importing_promptmint_is_cheap(self, fresh: Any, seconds: Callable[[Any, list[str]], float]) -> None:
        import sys

        assert seconds(fresh, [sys.executable, "-c", "import promptmint"]) < 0.5

    def test_so_is_help(self, fresh: Any, seconds: Callable[[Any, list[str]], float]) -> None:
        import sys

        assert seconds(fresh, [sys.executable, "-m", "promptmint.cli", "--help"]) < 1
