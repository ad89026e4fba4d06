"""How much faster and smaller promptmint tunes a prompt than PEFT's PromptTuning with the Trainer of transformers.

    python benchmarks/training_speed/run.py [--quick] [--only PART ...] [--record]

The folder `shared` with models and data lies beside the checkout, or where SHARED says.


same_math     both sides on equal batches of 16 random rows, alternately, in one process; losses of every step beside
              each other. "unsorted" is ours with all rows of a batch side by side in attention, as theirs are
memory        growth beyond the loaded base, a process each
ddp           two ranks of one thread beside one, on batches of rows of like lengths, as training makes them, always
              three times; "ceiling" is what two trainings on half of each batch reach that have nothing in common
sweep         eight prompts in one forward pass beside one after another, 16 rows each
reuse         a prompt after the text, which is read once, beside PEFT's before it; texts of 128, 256 and 512 tokens,
              P = 20: "first" is the epoch that reads them, "later" every other one, and the geomean is of these. Its
              accuracy on subj beside that of our own prompt before the text, at equal budget
incremental   what a retraining with 10 % of new rows takes outside its gradient steps, as a fraction of the first one's

--quick takes 4 cases and 8 steps (reuse: 2), else all 8 and 20 steps (reuse: 6); --record keeps the result, with its
provenance, in results/. The last line is one JSON object; a part that was not run is null with a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
import parts
import reuse
from cases import ALL, QUICK, Case

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import another, keep

RESULTS = Path(__file__).parent / "results"
PARTS = ("same_math", "memory", "ddp", "sweep", "reuse", "incremental")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--repetitions", type=int, help="of each comparison")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    begun = time.perf_counter()
    steps = arguments.steps or (8 if arguments.quick else 20)
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    result = measured(arguments.only, QUICK if arguments.quick else ALL, steps, repetitions)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    if arguments.record:
        keep(another(RESULTS, "speed"), result)
    print(json.dumps(brief(result)))


def measured(only: list[str], cases: list[Case], steps: int, repetitions: int) -> dict[str, Any]:
    """Every part by its name."""
    result: dict[str, Any] = {part: {"reason": "not asked for"} for part in PARTS}
    if "same_math" in only:
        each = [parts.same_math(case, steps, repetitions) for case in cases]
        result["same_math"] = {
            "cases": each,
            "geomean": parts.geomean([case["speedup"] for case in each]),
            "geomean_unsorted": parts.geomean([case["speedup_unsorted"] for case in each]),
        }
    if "memory" in only:
        each = [parts.memory(case, 3) for case in cases]
        result["memory"] = {"cases": each, "ratio": parts.geomean([case["ratio"] for case in each])}
    if "ddp" in only:
        result["ddp"] = parts.ddp(Case("tiny_llama", "ag_news", 20), steps, max(3, repetitions))
    if "sweep" in only:
        result["sweep"] = parts.sweep(Case("tiny_llama", "sst2", 20), steps, repetitions)
    if "reuse" in only:
        full = len(cases) == len(ALL)
        each = [case for base in ("tiny_llama", "random_25m") for case in reuse.speed(base, steps // 3, repetitions)]
        result["reuse"] = {
            "cases": each,
            "geomean": parts.geomean([case["later"] for case in each]),
            "geomean_first": parts.geomean([case["first"] for case in each]),
            "accuracy": reuse.accuracy(2000, 4, 3) if full else reuse.accuracy(600, 3, 1),
        }
    if "incremental" in only:
        result["incremental"] = reuse.incremental(2000 if len(cases) == len(ALL) else 500)
    return result


def brief(result: dict[str, Any]) -> dict[str, Any]:
    """The result without curves and single times."""
    names = ("speedup", "speedup_unsorted", "losses_apart", "same_losses", "ratio")
    cases = [
        {"case": f"{case['base']} {case['data']} P={case['tokens']}", **{n: case[n] for n in names if n in case}}
        for case in result["same_math"].get("cases", [])
    ]
    reused = [
        {"case": f"{case['base']} T={case['length']} P={case['tokens']}", **{n: case[n] for n in ("first", "later")}}
        for case in result["reuse"].get("cases", [])
    ]
    wanted = {
        "same_math": ("cases", "geomean", "geomean_unsorted"),
        "reuse": ("cases", "geomean", "geomean_first", "accuracy"), "sweep": ("speedup",),
        "ddp": ("efficiency", "ceiling", "bytes_per_step"), "memory": ("ratio",), "incremental": ("fraction",),
    }  # fmt: skip
    shown = {}
    for part, keys in wanted.items():
        short = {"same_math": cases, "reuse": reused}.get(part)
        found = result[part] | ({"cases": short} if short else {})
        shown[part] = {key: found.get(key) for key in keys} | ({"reason": found["reason"]} if "reason" in found else {})
    return shown


def child(answer: str, part: str, *words: str) -> None:
    """One part's share of the work, in this process; its figures go to the file `answer`."""
    if part == "memory":
        side, base, data, tokens, steps = words
        found = parts.grown_memory(side, Case(base, data, int(tokens)), int(steps))
    else:
        base, data, tokens, steps = words
        of = {"ddp": parts.of_rank, "half": parts.half_alone}[part]
        found = of(Case(base, data, int(tokens)), int(steps))
    if int(os.environ.get("RANK", 0)) == 0:
        Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
