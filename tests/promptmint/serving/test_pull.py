"""What a serving team pays for a prompt: kilobytes, and none of the packages that only mint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PULL = """
import json, sys
from pathlib import Path
import promptmint
from promptmint.client import pull
folder = pull("tickets@champion", Path(sys.argv[1]))
print(json.dumps([str(folder), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
MINTING_ONLY = {"prefect", "great_expectations", "pandera", "peft", "datasets", "flows", "tasks"}


def test_pulling_takes_kilobytes_and_nothing_of_the_pipeline(shop: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PULL, str(tmp_path / "pulled")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    folder, modules = json.loads(done.stdout)
    assert set(modules) & MINTING_ONLY == set()
    assert Path(folder) == tmp_path / "pulled" / "tickets-v1"
    assert sum(path.stat().st_size for path in Path(folder).iterdir()) < 100_000
    fetched = [path.name for path in (shop.home / "cache").rglob("*") if path.is_file()]
    assert "prompt.safetensors" in fetched and "model.safetensors" not in fetched, "the base stays where it is"
