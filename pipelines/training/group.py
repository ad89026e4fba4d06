"""How the workers of one training find each other: in a file on one machine, at an address where there are several.

Rank 0 is the first worker of the machine that launched the training, wherever the rendezvous put it: it has the jobs,
the checkpoints and the folder that results are published in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from pipelines.training.compute import Compute


def device_of(compute: Compute) -> torch.device:
    """This worker's device, its share of the cores set."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // here))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of CPUs too: plain matrices stay in bf16
    if compute.device == "cpu" or (compute.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined(compute: Compute, device: torch.device, folder: Path, leads: bool) -> Iterator[None]:
    """The workers as one group: gloo on CPUs, NCCL on GPUs; one worker alone needs none.

    Args:
        compute: how many machines, and how long one waits for another.
        device: this worker's.
        folder: of this machine's launch.
        leads: whether the training was launched on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=compute.silence_s)
    store, rank, workers = _met_in_file(folder) if compute.hosts == 1 else _met_at_address(timeout, leads)
    dist.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


Met = tuple[Any, int, int]  # a store of torch.distributed, rank, workers


def _met_in_file(folder: Path) -> Met:
    workers, attempt = int(os.environ["WORLD_SIZE"]), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.FileStore(str(folder / f"group-{attempt}"), workers)  # type: ignore[attr-defined]
    return store, int(os.environ["RANK"]), workers


def _met_at_address(timeout: timedelta, leads: bool) -> Met:
    """The launcher's own store; ranks are counted from the first worker of the machine that leads."""
    store, rank, workers = next(rendezvous("env://", timeout=timeout))
    if leads and int(os.environ["LOCAL_RANK"]) == 0:
        store.set("leader", str(rank))
    store.wait(["leader"], timeout)
    return store, (rank - int(store.get("leader"))) % workers, workers
