"""What a frozen base made of texts, kept on this machine in blocks: computed once, whoever asks for it again.

FOLDER/BASE/KIND/SHA256.safetensors    a block: one tensor per text, named by the digest of its token ids

BASE is the base's digest, KIND says what was read and how exactly. A block gets its name when it is whole and on the
disk, and is never changed. Its header is its index: no other file could disagree with it, and what a killed writer
leaves is a file `.writing-...` that nobody reads. Blocks are mapped into memory: what lies in them is read when it is
asked for. Two processes may write side by side; a text that both have read lies there twice, equal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pipelines.digests import digest_bytes
from pipelines.errors import StoreError
from pipelines.store.local import replacing

SUFFIX = ".safetensors"
WRITING = ".writing-*"
ABANDONED_S = 24 * 3600.0  # a file in the making that is older has no writer any more


@dataclass(frozen=True)
class Room:
    """Where the activations of one base may lie: in `folder`, which holds those of all bases."""

    folder: Path
    base: str
    size_bytes: int  # of all that lies in the folder, about: writers side by side may each be a block over it


class Activations:
    """Those of one kind on one base, by the digest of what was read; without a room it holds nothing."""

    def __init__(self, room: Room | None, kind: str) -> None:
        self.room = room
        self.kind = kind
        self._mapped: dict[str, Tensor] = {}
        self._own: set[Path] = set()  # the blocks that it reads
        self._seen: set[Path] = set()

    def get(self, digest: str) -> Tensor | None:
        """What was kept under a digest, mapped: it is not to be changed."""
        return self._mapped.get(digest)

    def look(self, wanted: Sequence[str]) -> None:
        """Map what is wanted and lies there; blocks that help are young again. A damaged block is removed."""
        if self.room is None:
            return
        missing = set(wanted) - self._mapped.keys()
        for path in sorted(set(self._folder.glob(f"[!.]*{SUFFIX}")) - self._seen):
            self._seen.add(path)
            try:
                found = load_file(path)
                useful = missing & found.keys()
                if useful:
                    os.utime(path)
            except FileNotFoundError:  # somebody needed the room
                continue
            except SafetensorError:
                path.unlink(missing_ok=True)
                continue
            if useful:
                self._own.add(path)
                self._mapped |= {digest: found[digest] for digest in useful}
                missing -= useful

    def add(self, tensors: Mapping[str, Tensor]) -> bool:
        """Keep tensors as a block, if there is room or older blocks can make some; whether they were kept."""
        if self.room is None:
            return False
        content = save({digest: tensor.contiguous() for digest, tensor in tensors.items()})
        if not self._make_room(self.room, len(content)):
            return False
        path = self._folder / f"{digest_bytes(content)}{SUFFIX}"
        try:
            with replacing(path) as file:
                file.write(content)
        except StoreError:  # a full disk costs time only
            return False
        self._own.add(path)
        self._seen.add(path)
        self._mapped |= load_file(path)
        return True

    @property
    def _folder(self) -> Path:
        assert self.room is not None
        return self.room.folder / self.room.base / self.kind

    def _make_room(self, room: Room, size: int) -> bool:
        """Whether a new block fits; those that were used longest ago, and not by this training, go for it."""
        blocks = []
        for path in room.folder.glob(f"*/*/[!.]*{SUFFIX}"):
            with suppress(FileNotFoundError):
                about = path.stat()
                blocks.append((about.st_mtime, about.st_size, path))
        too_much = sum(each for _, each, _ in blocks) + size - room.size_bytes
        others = sorted(block for block in blocks if block[2] not in self._own)
        if too_much > sum(each for _, each, _ in others):
            return False
        for _, each, path in others:
            if too_much <= 0:
                break
            path.unlink(missing_ok=True)
            too_much -= each
        for left in room.folder.glob(f"*/*/{WRITING}"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    left.unlink()
        return True


def digest_of(token_ids: Sequence[int]) -> str:
    """The digest of what is read."""
    return digest_bytes(np.asarray(token_ids, "<i4").tobytes())
