"""What a prompt adds to the time of an answer: measured beside the untouched base with the same head, never assumed.

A time is a fact about a machine at a moment. It is measured anew in every run that has a budget for it, on the machine
that scores, and nothing is named by it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from pipelines.evaluation.statistics import binomial_at_most
from pipelines.inference.base import Base
from pipelines.inference.mixed import scores_of_one
from pipelines.inference.predictor import ready
from pipelines.prompts.artifact import SoftPrompt
from pipelines.store.store import Store
from pipelines.store.trees import load_tree
from pipelines.tokens.template import MARKER
from pipelines.training.compute import Compute
from pipelines.training.job import LatencyJob
from pipelines.training.launch import News, launch

WARM_UP = 10
REPETITIONS = 100


def added_latency(
    store: Store, tree: str, base_folder: Path, tokens: int, compute: Compute, cache: Path, on_news: News
) -> dict[str, Any]:
    """The figures of `measure` for a minted prompt, taken by a worker.

    Args:
        store: holds the prompt's artifact, `tree`.
        base_folder: of its base.
        tokens: of the text.
        compute: where to measure.
        cache: for the artifact.
        on_news: called with each line of the worker's progress.
    """
    figures: dict[str, Any] = {}
    job = LatencyJob(name="latency", weights=load_tree(store, tree, cache), tokens=tokens)

    def keep(name: str, finished: Path) -> None:
        figures.update(json.loads((finished / "result.json").read_bytes()))

    launch(base_folder, [job], compute, on_news, keep, cache.parent / "work")
    return figures


@torch.no_grad()
def measure(base: Base, prompt: SoftPrompt, tokens: int) -> dict[str, Any]:
    """`{added_latency_ms, prompt_latency_ms, base_latency_ms, ...}`: medians of one text at a time, and what of.

    The prompt is read once beforehand, as a server does it. Both answer the same `tokens` drawn token ids in turn, each
    first in every other round, so that whatever else the machine does falls on both; the first rounds are thrown away.
    A prompt whose template says where it stands comes after them. What is added is the median of the rounds'
    differences, with a range that holds the true one in 95 % of the cases. Tokenising takes part in neither, since it
    is the same for both.
    """
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(base.embeddings.weight.shape[0], (1, tokens), generator=drawn).to(base.device)
    prompt = ready(prompt, base)
    marked = functional.pad(ids, (0, 1), value=MARKER) if "inserted" in prompt.tensors else ids
    sides = [("prompt", prompt, marked), ("base", replace(prompt, tensors={}), ids)]
    took: dict[str, list[float]] = {side: [] for side, _, _ in sides}
    for turn in range(WARM_UP + REPETITIONS):
        for side, steered, asked in sides if turn % 2 else sides[::-1]:
            _wait(base.device)
            start = time.perf_counter()
            scores_of_one(base, asked, torch.ones_like(asked), steered)
            _wait(base.device)
            took[side].append(1000 * (time.perf_counter() - start))
    prompts, bases = took["prompt"][WARM_UP:], took["base"][WARM_UP:]
    added = sorted(one - other for one, other in zip(prompts, bases, strict=True))
    low, high = median_range(added)
    figures = {
        "added_latency_ms": median(added),
        "added_latency_low_ms": low,
        "added_latency_high_ms": high,
        "prompt_latency_ms": median(prompts),
        "base_latency_ms": median(bases),
    }
    return {name: round(ms, 4) for name, ms in figures.items()} | {
        "latency_tokens": tokens,
        "batch_size": 1,
        "warm_up": WARM_UP,
        "repetitions": REPETITIONS,
        "machine": _machine(base.device),
    }


def median_range(ordered: Sequence[float]) -> tuple[float, float]:
    """Two of the values, given in order, that hold the true median between them in at least 95 % of the cases.

    As many values lie below the median as tosses of a fair coin show heads.
    """
    n, outside = len(ordered), 0
    while binomial_at_most(outside, n, 0.5) <= 0.025:
        outside += 1
    place = max(0, outside - 1)
    return ordered[place], ordered[n - 1 - place]


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _machine(device: torch.device) -> dict[str, Any]:
    """Where the time was taken."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
