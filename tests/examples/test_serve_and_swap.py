"""The example of a server that swaps champions under load runs by itself and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "serve_and_swap.py"


@pytest.mark.slow
def test_no_request_fails_and_no_answer_is_mixed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "scratch")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "5"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line[:15].strip(): line[15:].strip() for line in done.stdout.splitlines()[2:]}
    assert (found["swaps"], found["failed"], found["mixed answers"], found["server's end"]) == (
        "5",
        "0",
        "0",
        "exit code 0",
    )
    assert int(found["requests"]) > 10
    assert list((tmp_path / "scratch").iterdir()) == [] and [each.name for each in tmp_path.iterdir()] == ["scratch"]


def test_what_is_wrong_is_counted() -> None:
    spec = importlib.util.spec_from_file_location("serve_and_swap", SCRIPT)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    sys.modules["serve_and_swap"] = example  # its dataclasses look themselves up
    spec.loader.exec_module(example)
    expected = {"orchard@1": {"t": [0.25, 0.75]}, "orchard@2": {"t": [0.5, 0.5]}}
    right = {"prompt": "orchard@champion", "version": 1, "probabilities": {"a": 0.25, "b": 0.75}}
    other = {"prompt": "orchard@champion", "version": 2, "probabilities": {"a": 0.5, "b": 0.5}}
    rows = [{"prompt": "orchard", "text": "t"}] * 2
    for answers, counted in [
        ([right, right], {}), ([other, other], {}), (None, {"failed": 1}), ([right], {"failed": 1}),
        ([right, other], {"mixed": 1}), ([right, {**right, "probabilities": {"a": 0.5, "b": 0.5}}], {"mixed": 1}),
    ]:  # fmt: skip
        load = example.Load("http://nowhere", expected)
        load.note(rows, answers)
        assert +load.counts == {"requests": 1, **counted}
