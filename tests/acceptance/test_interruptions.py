"""A run stopped again and again, by Ctrl-C and by a server that is gone: nothing is lost, nothing stays behind.

One story in one workshop, told in order; every run goes on from where the one before it was stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

INTERRUPTED = "Interrupted. What was finished is in the store; the same command goes on from there."


@pytest.fixture(scope="module")
def shop(workshop: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workshop whose recipe trains for some seconds."""
    made = workshop(tmp_path_factory.mktemp("story") / "workshop")
    made.edit("epochs = 8", "epochs = 40")
    return made


def interrupt(shop: Any, when: Callable[[], bool]) -> tuple[int, str]:
    """How `promptmint run` ended after Ctrl-C, pressed as soon as `when()`: its exit code and what it said."""
    command = [sys.executable, "-m", "promptmint.cli", "run", "orchard.toml", "--json"]
    with (shop.folder / "said").open("w+") as said:
        process = subprocess.Popen(
            command, cwd=shop.folder, env=shop.environment(), stdout=said, stderr=said, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores Ctrl-C
        )  # fmt: skip
        deadline = time.monotonic() + 180
        while not when():
            assert process.poll() is None, f"it ended before it was interrupted: {(shop.folder / 'said').read_text()}"
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and to all that it started
        code = process.wait(timeout=120)
        return code, (shop.folder / "said").read_text()


def left_behind(shop: Any) -> list[str]:
    """The processes of this workshop that still live, after some seconds to end in."""
    mine: list[str] = []
    for _ in range(100):
        mine = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("PROMPTMINT_HOME") == str(shop.home)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(" ".join(process.cmdline()))
            except (psutil.Error, OSError):
                continue
        if not mine:
            break
        time.sleep(0.1)
    return mine


def remembered(shop: Any, stage: str) -> int:
    """How many results of a stage the store remembers."""
    return len(list((shop.store / "memo" / stage).glob("*.json")))


def half_written(folder: Path) -> list[Path]:
    return list(folder.rglob(".writing-*"))


def check_interrupted(shop: Any, code: int, said: str) -> None:
    assert code == 130, said
    assert INTERRUPTED in said
    assert "Traceback" not in said and "Error" not in said, said
    assert left_behind(shop) == []
    assert half_written(shop.store) == []
    assert not list((shop.store / "runs").rglob("*.json")), "a run that was stopped has not ended"


def test_ctrl_c_during_validation(shop: Any) -> None:
    code, said = interrupt(shop, lambda: len(list(shop.store.glob("trees/*/*.json"))) >= 2)  # the base, the snapshot
    check_interrupted(shop, code, said)
    assert remembered(shop, "validate") == 0


def test_ctrl_c_during_training_keeps_what_was_trained(shop: Any) -> None:
    code, said = interrupt(shop, lambda: remembered(shop, "train") == 1)
    check_interrupted(shop, code, said)
    assert 1 <= remembered(shop, "train") < 4
    assert not list((shop.home / "work").glob("*job-*")), "the workers' folder was removed"


@pytest.mark.long
def test_without_mlflow_everything_else_is_kept(shop: Any) -> None:
    gone = shop.promptmint("run", "orchard.toml", "--json", MLFLOW_TRACKING_URI="http://127.0.0.1:9", timeout_s=400)
    assert gone.code in (9, 11), gone.err
    assert gone.out == "" and "Traceback" not in gone.err
    message = gone.err.splitlines()[-1]
    assert "MLflow at 'http://127.0.0.1:9'" in message and "run the recipe again" in message
    assert remembered(shop, "train") == 4
    assert not list((shop.home / "work").iterdir()), "no checkpoint is left of what is in the store"
    assert left_behind(shop) == []


def test_ctrl_c_during_registration(shop: Any) -> None:
    code, said = interrupt(shop, lambda: any((shop.home / "mlartifacts").rglob("report.md")))  # the model comes next
    check_interrupted(shop, code, said)


def test_the_next_run_completes_without_training(shop: Any) -> None:
    before = {path.name: path.read_bytes() for path in (shop.store / "memo" / "train").iterdir()}
    done = shop.promptmint("run", "orchard.toml", "--json")
    assert done.code == 0, done.err
    assert done.json["version"] == 1 and done.json["verdict"] in ("passed", "inconclusive", "refused")
    assert {path.name: path.read_bytes() for path in (shop.store / "memo" / "train").iterdir()} == before
    record = json.loads((shop.store / "runs" / "orchard" / f"{done.json['run_key']}.json").read_bytes())
    assert {name: each["reused"] for name, each in record["trained"].items()} == dict.fromkeys(
        ("prompt", "lora", "full", "head_only"), True
    )
    history = shop.promptmint("status", "orchard", "--json").json["history"]
    assert [entry["version"] for entry in history if entry["action"] == "registered"] == [1]
    assert shop.promptmint("verify", "orchard@1").code == 0
