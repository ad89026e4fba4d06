"""The prompts of an engine by name, the tensors of those used last in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.errors import ArtifactError, listed
from pipelines.prompts.artifact import SoftPrompt


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of a prompt while its tensors are not in memory: where to read them, and all but them."""

    folder: Path
    card: SoftPrompt


class Shelf:
    """Prompts by name, their tensors within a bound. Safe to use from several threads.

    Args:
        limit_bytes: what the tensors may take; those that were not asked for the longest are dropped. None: no bound.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[str, Entry] = {}
        self._loaded: OrderedDict[str, SoftPrompt] = OrderedDict()  # the one used last at the end
        self._loaded_bytes = 0
        self._lock = threading.Lock()

    def put(self, name: str, folder: Path, prompt: SoftPrompt) -> None:
        """Keep a prompt under a name, in the place of another one."""
        with self._lock:
            self._drop(name)
            self._entries[name] = Entry(folder, replace(prompt, tensors={}, head={}))
            self._load(name, prompt)

    def take(self, name: str) -> None:
        """Let a prompt go.

        Raises:
            ArtifactError: there is none of this name.
        """
        with self._lock:
            self._entry(name)
            self._drop(name)
            del self._entries[name]

    def get(self, name: str, read: Callable[[Path, str], SoftPrompt]) -> SoftPrompt:
        """The prompt of a name with its tensors, by `read(folder, digest)` where they were dropped.

        Raises:
            ArtifactError: there is none of this name, or `read` refuses it.
        """
        with self._lock:
            entry = self._entry(name)
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
        prompt = read(entry.folder, entry.card.digest)
        with self._lock:
            if self._entries.get(name) is entry and name not in self._loaded:  # nobody was faster
                self._load(name, prompt)
        return prompt

    def prompts(self) -> dict[str, SoftPrompt]:
        """All of them by name; one whose tensors were dropped has none."""
        with self._lock:
            return {name: self._loaded.get(name, entry.card) for name, entry in sorted(self._entries.items())}

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise ArtifactError(f"There is no prompt {name!r} here; there are {listed(self._entries)}. Add it first.")
        return self._entries[name]

    def _load(self, name: str, prompt: SoftPrompt) -> None:
        self._loaded[name] = prompt
        self._loaded_bytes += size_bytes(prompt)
        while self._limit_bytes is not None and self._loaded and self._loaded_bytes > self._limit_bytes:
            self._drop(next(iter(self._loaded)))

    def _drop(self, name: str) -> None:
        if name in self._loaded:
            self._loaded_bytes -= size_bytes(self._loaded.pop(name))


def size_bytes(prompt: SoftPrompt) -> int:
    """What the tensors of a prompt and its head take."""
    return sum(tensor.nbytes for tensor in (*prompt.tensors.values(), *prompt.head.values()))
