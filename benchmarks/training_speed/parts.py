"""What is measured: speed at equal losses, memory, several ranks, several prompts at once."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import BATCH, OPTIMISATION, RATE, Case, folder_of, rows_of
from sides import Ours, Ran, Theirs
from torch.nn.parallel import DistributedDataParallel

from pipelines.inference import packing
from pipelines.training import loop
from pipelines.training.shards import Rows
from pipelines.training.together import Member, train_together
from pipelines.training.tuned import tune

RUN = Path(__file__).with_name("run.py")
PROMPTS, SWEPT = 8, 16  # of a sweep, and the rows of each in a step
SORTING = packing.ALIKE
AGREES = 1e-4  # relative difference of two losses of the same step


def same_math(case: Case, steps: int, repetitions: int) -> dict[str, Any]:
    """Ours, the other side, and ours without sorting rows by length, one after another in each repetition."""
    rows, warm = rows_of(case.data, steps * BATCH), rows_of(case.data, 2 * BATCH)
    with folder_of(case.base) as folder:
        ours, theirs = Ours(case, folder), Theirs(case, folder)
    start = ours.start()
    ran: dict[str, list[Ran]] = {"ours": [], "theirs": [], "ours_unsorted": []}
    for given, kept in [(warm, False), *[(rows, True)] * repetitions]:
        for name in ran:
            packing.ALIKE = SORTING if name == "ours" else math.inf  # one group: all rows side by side
            went = theirs.run(given, start) if name == "theirs" else ours.run(given)
            if kept:
                ran[name].append(went)
    losses = {name: each[0].losses for name, each in ran.items()}
    seconds = {name: [once.seconds for once in each] for name, each in ran.items()}
    print(f"\n{case}: losses of {steps} steps")
    for name, curve in losses.items():
        print(f"  {name:<14}" + " ".join(f"{loss:.5f}" for loss in curve))
    apart = {
        name: max(abs(a - b) / abs(b) for a, b in zip(losses[name], losses["theirs"], strict=True))
        for name in ("ours", "ours_unsorted")
    }
    speedup = {name: _ratio(seconds["theirs"], seconds[name]) for name in ("ours", "ours_unsorted")}
    print(f"  losses differ by {apart['ours']:.1e}; {speedup['ours']:.2f} times as fast,"
          f" {speedup['ours_unsorted']:.2f} unsorted", flush=True)  # fmt: skip
    return {
        **case.to_json(), "steps": steps, "losses": losses, "seconds": seconds, "losses_apart": apart["ours"],
        "same_losses": len(losses["ours"]) == steps and max(apart.values()) <= AGREES,
        "speedup": speedup["ours"], "speedup_unsorted": speedup["ours_unsorted"],
    }  # fmt: skip


def geomean(values: list[float]) -> float:
    """The geometric mean."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def memory(case: Case, steps: int) -> dict[str, Any]:
    """How much memory training takes beyond the loaded base, a process each: MiB, and ours as a share of theirs."""
    grown = {side: _child("memory", side, *_named(case), str(steps))["grown_mib"] for side in ("ours", "theirs")}
    return {**case.to_json(), "grown_mib": grown, "ratio": grown["ours"] / grown["theirs"]}


def grown_memory(side: str, case: Case, steps: int) -> dict[str, Any]:
    """In a process of its own: the most memory that training took beyond what it had at its start (Linux)."""
    rows = rows_of(case.data, steps * BATCH)
    with folder_of(case.base) as folder:
        start = Ours(case, folder).start() if side == "theirs" else None
        trainer = Ours(case, folder) if side == "ours" else Theirs(case, folder)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _status_kib("VmRSS")
    if isinstance(trainer, Theirs):
        assert start is not None
        trainer.run(rows, start)
    else:
        trainer.run(rows)
    return {"grown_mib": (_status_kib("VmHWM") - before) / 1024}


def sweep(case: Case, steps: int, repetitions: int) -> dict[str, Any]:
    """Prompts of other seeds and rates trained in one forward pass, and one after another."""
    rows, warm = rows_of(case.data, steps * SWEPT), rows_of(case.data, SWEPT)
    first = Rows(rows.ids[:1], rows.tokens[:1], rows.labels[:1], rows.lengths[:1])
    with folder_of(case.base) as folder:
        ours = Ours(case, folder)
    words = {"word_ids": torch.tensor(sorted(set(rows.labels.tolist())))}
    classes = {word: number for number, word in enumerate(words["word_ids"].tolist())}
    labelled = [
        replace(each, labels=np.array([classes[label] for label in each.labels])) for each in (rows, warm, first)
    ]
    rows, warm, first = labelled

    shared = OPTIMISATION.model_copy(update={"batch_size": SWEPT})

    def members() -> list[Member]:
        chosen = [case.prompt().model_copy(update={"rate": RATE / 2**number}) for number in range(PROMPTS)]
        return [Member(tune(ours.base, each, words, seed), each, seed) for seed, each in enumerate(chosen)]

    def alone(given: Rows) -> tuple[float, list[float]]:
        went = [loop.train(each.tuned, each.settings, shared, each.seed, given, first, lambda news: None)
                for each in members()]  # fmt: skip
        return sum(each.seconds for each in went), [each.curve[-1][1] for each in went]

    def together(given: Rows) -> tuple[float, list[float]]:
        went = train_together(members(), shared, given, first)
        return went[0].seconds, [each.curve[-1][1] for each in went]

    alone(warm)
    together(warm)
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    losses = {}
    for _ in range(repetitions):
        for name, way in (("alone", alone), ("together", together)):
            took, losses[name] = way(rows)
            seconds[name].append(took)
    return {**case.to_json(), "prompts": PROMPTS, "rows": SWEPT, "steps": steps, "seconds": seconds,
            "last_losses": losses, "speedup": _ratio(seconds["alone"], seconds["together"])}  # fmt: skip


def ddp(case: Case, steps: int, repetitions: int) -> dict[str, Any]:
    """Two ranks of one thread beside one rank of one thread, on the same batches; and two that have nothing in common.

    The last two train at once on half of each batch and wait for nobody: what two ranks could reach on this machine.
    """
    seconds: dict[str, list[float]] = {"one": [], "two": [], "apart": []}
    losses, sent = {}, {}
    for _ in range(repetitions):
        for name, ranks in (("one", 1), ("two", 2)):
            went = _child("ddp", *_named(case), str(steps), ranks=ranks)
            seconds[name].append(went["seconds"])
            losses[name], sent[name] = went["losses"], went["bytes_per_step"]
        with ThreadPoolExecutor(2) as both:
            halves = [both.submit(_child, "half", *_named(case), str(steps)) for _ in range(2)]
            seconds["apart"].append(max(half.result()["seconds"] for half in halves))
    return {
        **case.to_json(), "steps": steps, "seconds": seconds, "losses": losses,
        "efficiency": _ratio(seconds["one"], seconds["two"]), "ceiling": _ratio(seconds["one"], seconds["apart"]),
        "bytes_per_step": sent["two"], "prompt_bytes": went["prompt_bytes"],
    }  # fmt: skip


def half_alone(case: Case, steps: int) -> dict[str, Any]:
    """A training of one thread on half of each batch, without other ranks."""
    torch.set_num_threads(1)
    with folder_of(case.base) as folder:
        ours = Ours(case, folder)
    size = BATCH // 2
    warm, rows = (_sorted_alike(rows_of(case.data, number * size)) for number in (2, steps))
    ours.run(warm, size)
    return {"seconds": ours.run(rows, size).seconds}


def of_rank(case: Case, steps: int) -> dict[str, Any]:
    """On one of the ranks: a training, and how many bytes of gradients were summed over the ranks in each step."""
    torch.set_num_threads(1)
    sent = 0

    class Counted(DistributedDataParallel):
        def __init__(self, module: torch.nn.Module) -> None:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

            super().__init__(module)

            def count(state, bucket):  # type: ignore[no-untyped-def]  # torch wants no other annotation
                nonlocal sent
                sent += bucket.buffer().nbytes
                return allreduce_hook(state, bucket)

            self.register_comm_hook(None, count)

    with folder_of(case.base) as folder:  # before the ranks know of each other: only the first of several would write
        ours = Ours(case, folder)
    torch.distributed.init_process_group("gloo")
    loop.DistributedDataParallel = Counted  # type: ignore[misc]
    warm, rows = (_sorted_alike(rows_of(case.data, number * BATCH)) for number in (2, steps))
    ours.run(warm)
    sent = 0
    went = ours.run(rows)
    torch.distributed.destroy_process_group()
    return {"seconds": went.seconds, "losses": went.losses, "bytes_per_step": sent / steps,
            "prompt_bytes": ours.start().nbytes}  # fmt: skip


def _sorted_alike(rows: Rows) -> Rows:
    """The rows with their true lengths, so that those of like lengths meet in a batch, as they do in training."""
    return replace(rows, lengths=np.array([len(row) for row in rows.tokens]))


def _child(part: str, *words: str, ranks: int = 0) -> dict[str, Any]:
    """What a part gives that runs in a process of its own, or in as many as there are ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        subprocess.run([sys.executable, *launcher, str(RUN), "--child", str(answer), part, *words], check=True)
        result: dict[str, Any] = json.loads(answer.read_bytes())
    return result


def _named(case: Case) -> tuple[str, str, str]:
    return case.base, case.data, str(case.tokens)


def _ratio(slower: list[float], faster: list[float]) -> float:
    """The median over the repetitions of what two things that ran beside each other took."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def _status_kib(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])
