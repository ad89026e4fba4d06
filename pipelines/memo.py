"""Stages remembered in the store: doing a thing twice is doing it once.

A stage is a function from digests to JSON (which names trees in the store by their digests). Its key covers the stage's
name, its version, its inputs and its parameters; nothing else in promptmint caches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.digests import canonical_json, digest_json
from pipelines.errors import NotInStore
from pipelines.store.store import Store


@dataclass(frozen=True)
class Stage:
    """A step whose result depends on its inputs alone. Raise `version` when its code changes what comes out."""

    name: str
    version: int

    def key(self, inputs: Mapping[str, Any]) -> str:
        """Where the result for `inputs` (digests and parameters, as JSON) lies in the store."""
        digest = digest_json({"stage": self.name, "version": self.version, "inputs": dict(inputs)})
        return f"memo/{self.name}/{digest}.json"


@dataclass(frozen=True)
class Remembered:
    """What a stage made: `value` as JSON, the `seconds` it took when it ran, and whether it came from the store."""

    value: dict[str, Any]
    seconds: float
    reused: bool


def recall(store: Store, stage: Stage, inputs: Mapping[str, Any]) -> Remembered | None:
    """What `stage` made of `inputs` earlier, or None.

    The memo is written anew, as it is: what somebody relies on is young, and no garbage (see garbage.py).
    """
    try:
        data = store.read(stage.key(inputs))
    except NotInStore:
        return None
    store.write(stage.key(inputs), data)
    record = json.loads(data)
    return Remembered(record["value"], record["seconds"], reused=True)


def remember(
    store: Store, stage: Stage, inputs: Mapping[str, Any], value: dict[str, Any], seconds: float
) -> Remembered:
    """Keep `value` as what `stage` made of `inputs`; its trees must be in the store already."""
    record = {"stage": stage.name, "version": stage.version, "inputs": dict(inputs), "value": value, "seconds": seconds}
    store.write(stage.key(inputs), canonical_json(record))
    return Remembered(value, seconds, reused=False)


def once(store: Store, stage: Stage, inputs: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> Remembered:
    """What `stage` makes of `inputs`: from the store where it is known, else computed and kept."""
    if known := recall(store, stage, inputs):
        return known
    start = time.perf_counter()
    value = compute()
    return remember(store, stage, inputs, value, time.perf_counter() - start)
