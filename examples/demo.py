"""The main job, shown: tickets arrive, one prompt is minted and judged, a weaker one is refused, one answers.

make demo
.venv/bin/python examples/demo.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKETS = ROOT / ".promptmint" / "tickets" / "tickets.parquet"
TICKET = "The parcel is three days late and the courier says it was never handed over to them"


def main() -> None:
    """Run each command as a person would, in the repository's folder."""
    start = time.perf_counter()
    if not TICKETS.exists():
        TICKETS.parent.mkdir(parents=True, exist_ok=True)
        show("python", "examples/tickets/generate.py", str(TICKETS.relative_to(ROOT)))
    show("promptmint", "run", "recipes/ticket_routing.toml")
    say("The same tickets, one quick epoch of a weaker method, to see a refusal. Its baselines come from the store.")
    show("promptmint", "run", "recipes/ticket_routing_input_prompt.toml")
    show("promptmint", "status", "ticket-routing")
    show("promptmint", "predict", f"ticket-routing@{best_version()}", TICKET)
    say(f"Done in {time.perf_counter() - start:.0f} s. Run 'make demo' again: nothing has changed, nothing is trained.")
    say("Prefect and MLflow in the browser: 'make up' starts both and prints where; 'make down' stops them.")


def best_version() -> int:
    """The champion; or, where no version has passed its gates, the newest one."""
    program = Path(sys.executable).with_name("promptmint")
    done = subprocess.run(
        [str(program), "status", "ticket-routing", "--json"], cwd=ROOT, check=True, capture_output=True
    )
    status = json.loads(done.stdout)
    version: int = status["champion"] or status["history"][-1]["version"]
    return version


def show(*command: str) -> None:
    """Print a command and run it; end with its code where it fails."""
    print(f"\n$ {' '.join(command)}", flush=True)
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(program), *command[1:]], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def say(text: str) -> None:
    """Print a line between two commands."""
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
