"""The benchmark of the race, with few writers: it ends, and its last line says what it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_few_writers_leave_one_champion_in_a_folder_and_on_s3() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "promotion_race" / "run.py", "--writers", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    folder, s3, last = done.stdout.splitlines()
    assert folder.startswith("folder: ") and s3.startswith("s3: ")
    assert json.loads(last) == {"champions": 1, "ledger_entries": 5, "refusals": 3, "gaps": 0}
