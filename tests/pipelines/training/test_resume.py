"""SIGKILL to everything at random moments of tunings by the real launcher: the same call goes on to the same bits.

The benchmark does it, for the prompt, LoRA and full fine-tuning, each with dropout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_tunings_end_as_those_left_in_peace() -> None:
    command = [sys.executable, "benchmarks/resume/run.py", "--kills", "3", "--baselines", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"kills": 3, "identical": 3}, done.stdout
    assert ": resumed at step " in done.stdout, "none of them had a checkpoint to go on from"
