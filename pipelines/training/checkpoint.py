"""Checkpoints: a training's state on the disk, so that one that was killed goes on to the very same end.

A checkpoint is one file, FOLDER/STEP-SHA256.safetensors, named by the digest of its bytes; what is JSON stands in its
header. It gets its name when it is whole and on the disk. What a killed writer leaves is a file `.writing-...`.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from pipelines.digests import canonical_json, digest_bytes, digest_file
from pipelines.training.collective import told, world
from pipelines.training.state import State, fits, machine, packed, unpacked
from pipelines.training.tuned import Tuned

KEPT = 3  # the last ones
WRITING = ".writing-"
SHARE = 20  # writing takes at most one part in so many of a training's time

Content = tuple[dict[str, Tensor], dict[str, Any]]


class Keeper:
    """The checkpoints of one training: written when they are due, found again after an interruption.

    One without a folder keeps nothing.
    """

    def __init__(self, folder: Path | None = None, every_s: float = 5.0) -> None:
        self.folder = folder
        self.every_s = every_s
        self.asked_to_stop = False
        self.resumed = self.trouble = ""
        self._ended, self._cost_s = time.monotonic(), 0.0

    @property
    def note(self) -> str:
        """What a person should know, or nothing."""
        return "; ".join(filter(None, (self.resumed, self.trouble)))

    def due(self) -> bool:
        """Whether `every_s` have passed since the last one; more where writing is slow, as the first worker knows."""
        if self.folder is None or world()[1] != 0:
            return False
        return time.monotonic() - self._ended >= max(self.every_s, SHARE * self._cost_s)

    def keep(self, state: State, tuned: Tuned, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint; every worker must call it, the first one writes.

        One that cannot be written, on a full disk for example, costs the training nothing but this checkpoint. A state
        with numbers that are none is not worth keeping.
        """
        if self.folder is None:
            return
        start = time.monotonic()
        tensors, facts = packed(state, tuned, optimizer)
        if world()[1] == 0 and all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            try:
                write_checkpoint(self.folder, state.step, tensors, facts)
                self.trouble = ""
            except (OSError, SafetensorError) as error:
                self.trouble = f"no checkpoint could be written, training goes on: {error}"
        self._ended = time.monotonic()
        self._cost_s = self._ended - start

    def resume(self, tuned: Tuned, optimizer: torch.optim.Optimizer) -> State:
        """The state of the newest checkpoint that is whole, put back into model, optimizer and random numbers.

        Without any: the state of a training that has not begun.
        """
        if self.folder is None:
            return State()
        content = content_of(told(self._newest_that_fits(tuned), tuned.base.device))
        if content is None:
            return State()
        state = unpacked(*content, tuned, optimizer)
        here, there = machine(tuned), content[1]["machine"]
        changed = ", ".join(name for name in here if here[name] != there.get(name))
        words = (f"resumed at step {state.step}", f"not to the last bit: {changed} changed" if changed else "")
        self.resumed = "; ".join(filter(None, (*words, self.resumed)))
        return state

    def _newest_that_fits(self, tuned: Tuned) -> bytes:
        """The bytes of the newest whole checkpoint, as the first worker finds it; none where there is none."""
        if self.folder is None or world()[1] != 0:
            return b""
        for left in self.folder.glob(f"{WRITING}*"):
            left.unlink(missing_ok=True)
        for path in _newest_first(self.folder):
            data = read_checkpoint(path)
            content = content_of(data)
            if content is not None and fits(*content, tuned):
                return data
            self.resumed = "an unusable checkpoint was passed over"
            with suppress(OSError):
                path.unlink()
        return b""

    def newest(self) -> Path | None:
        """The last checkpoint that was written, or None."""
        return next(iter(_newest_first(self.folder)), None) if self.folder else None


@contextmanager
def stopping(keeper: Keeper) -> Iterator[None]:
    """While this lasts, SIGTERM and Ctrl-C ask for an end with a checkpoint instead of ending the process."""

    def ask(number: int, frame: FrameType | None) -> None:
        keeper.asked_to_stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """The file that now holds a state; only the last KEPT of them stay."""
    folder.mkdir(parents=True, exist_ok=True)
    building = folder / f"{WRITING}{uuid.uuid4().hex}"
    try:
        save_file(tensors, building, {"facts": canonical_json(facts).decode()})
        _flush(building)
        path = building.rename(folder / f"{step:010d}-{digest_file(building)}.safetensors")
        with suppress(OSError):  # some network disks cannot be asked to, and the name is there already
            _flush(folder)
    finally:
        building.unlink(missing_ok=True)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint; none where they are not those that its name says."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    return data if digest_bytes(data) == path.stem.partition("-")[2] else b""


def content_of(data: bytes) -> Content | None:
    """What the bytes of a checkpoint hold, None of no bytes."""
    if not data:
        return None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load(data), json.loads(header["__metadata__"]["facts"])


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"), reverse=True)


def _flush(path: Path) -> None:
    """Bring a file or the names in a folder onto the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
