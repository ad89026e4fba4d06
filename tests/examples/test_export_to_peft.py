"""The example of an export runs by itself, and fails where plain PEFT answers differently."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "export_to_peft.py"


def test_it_runs_alone_and_says_how_close_each_kind_is(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [
        f"{method}, {head}"
        for method in ("prompt-tuning", "p-tuning", "p-tuning-v2", "prefix-tuning")
        for head in ("label words", "linear head")
    ]
    assert all(float(line.split()[-1]) <= 1e-4 for line in lines)


@pytest.fixture
def example() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("export_to_peft", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_difference_ends_it_with_1(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = example.plain_peft
    monkeypatch.setattr(example, "plain_peft", lambda *arguments: plain(*arguments) + 2e-4)
    with pytest.raises(SystemExit) as ended:
        example.main(None)
    assert ended.value.code == 1
