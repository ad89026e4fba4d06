"""Texts that are nearly the same: a signature of each, and which of two splits resemble each other too much.

Source: Broder (1997), "On the resemblance and containment of documents", sections 3 and 4: the share of hash functions
that have their minimum at the same shingle is the share of shingles that two texts have in common (Jaccard). Candidates
are found by bands of a signature, after Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets" (2014), 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5  # characters of a normalised text
HASHES = 128  # the standard error of a similarity s is sqrt(s (1 - s) / 128): 0.027 at 0.9
BAND = 4  # hashes of a band: two texts of similarity 0.7 share one of 32 with a probability above 0.999
BLOCK = 1024  # signatures that are compared at once

Signature = NDArray[np.uint32]
_draw = np.random.default_rng(20241)  # fixed: signatures are equal on every machine
_FACTORS = _draw.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _draw.integers(0, 2**63, HASHES, dtype=np.uint64)
_POWERS = np.uint64(1099511628211) ** np.arange(SHINGLE, dtype=np.uint64)


def signature(normal: str) -> Signature:
    """For each of `HASHES` functions its minimum over the shingles of a normalised text, [HASHES]."""
    signs = np.frombuffer(normal.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if len(signs) < SHINGLE:
        signs = np.pad(signs, (0, SHINGLE - len(signs)))
    shingles = np.unique(np.lib.stride_tricks.sliding_window_view(signs, SHINGLE) @ _POWERS)
    shingles ^= shingles >> np.uint64(29)
    hashed = _FACTORS[:, None] * shingles + _OFFSETS[:, None]  # modulo 2^64: multiply-shift hashing
    least: Signature = (hashed >> np.uint64(32)).min(axis=1).astype(np.uint32)
    return least


class Signatures:
    """Signatures on disk, 512 bytes a text, with the side of each (0 training, 1 validation, 2 test) in memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._sides: list[NDArray[np.int8]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def put(self, normals: list[str], sides: NDArray[np.int8]) -> None:
        """Append the signatures of some normalised texts, and their sides [texts]."""
        for normal in normals:
            self._file.write(signature(normal).tobytes())
        self._sides.append(sides)

    def near(self, similarity: float) -> tuple[NDArray[np.int8], int]:
        """For each text, in the order they were put, the side it resembles, and how many training texts are alike.

        Returns:
            [texts]: the most protected side, above its own, with a text of at least this similarity; -1 for none. And
            the number of training texts that resemble another one and no protected text.
        """
        self._file.flush()
        sides = np.concatenate([np.empty(0, np.int8), *self._sides])
        found, alike = np.full(len(sides), -1, np.int8), np.zeros(len(sides), bool)
        if len(sides):
            signatures = np.memmap(self._path, np.uint32, "r", shape=(len(sides), HASHES))
            for rows in self._sharing_a_band(len(sides)):
                _compare(rows, signatures, sides, similarity, found, alike)
        return found, int((alike & (sides == 0) & (found < 0)).sum())

    def _sharing_a_band(self, count: int) -> Iterator[NDArray[np.int64]]:
        """The texts that have equal hashes in one band, at least two, for one band after the other."""
        for band in range(0, HASHES, BAND):
            keys = np.empty(count, np.uint64)
            for start in range(0, count, BLOCK * 16):  # mapped anew, so that what was read does not stay in memory
                block = np.memmap(self._path, np.uint32, "r", shape=(count, HASHES))[start : start + BLOCK * 16]
                keys[start : start + len(block)] = block[:, band : band + BAND].astype(np.uint64) @ _POWERS[:BAND]
            order = np.argsort(keys, kind="stable")
            bounds = np.concatenate([[0], np.flatnonzero(np.diff(keys[order])) + 1, [count]])
            for place in np.flatnonzero(np.diff(bounds) > 1):
                yield order[bounds[place] : bounds[place + 1]]


def _compare(
    rows: NDArray[np.int64],
    signatures: NDArray[np.uint32],
    sides: NDArray[np.int8],
    similarity: float,
    found: NDArray[np.int8],
    alike: NDArray[np.bool_],
) -> None:
    """Note for these texts which more protected ones they resemble, and which training texts resemble the first."""
    of = sides[rows]
    for side in (1, 2):
        protected, others = rows[of == side], rows[(of < side) & (found[rows] < side)]
        for start in range(0, len(protected), BLOCK):
            block = signatures[protected[start : start + BLOCK]]
            for row in others:
                if (signatures[row] == block).mean(axis=1).max() >= similarity:
                    found[row] = side
    trained = rows[of == 0]
    if len(trained) > 1:
        same = (signatures[trained[0]] == signatures[trained[1:]]).mean(axis=1) >= similarity
        alike[trained[1:][same]] = True
