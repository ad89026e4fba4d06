"""Token shards as the training loop reads them: rows of token ids with labels or targets in memory, and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.inference.forward import padded
from pipelines.tokens.template import MARKER


@dataclass(frozen=True)
class Rows:
    """Tokenised examples: `tokens` are n rows of ids, `labels` and `lengths` (of their tokens) are [n]."""

    ids: list[str]
    tokens: Sequence[Sequence[int]]
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Token ids and mask, each [B, T], and labels [B] of some rows."""
        ids, mask = padded([self.tokens[row] for row in rows])
        return (ids.to(device), mask.to(device)), torch.from_numpy(self.labels[rows]).to(device)


@dataclass(frozen=True)
class TextRows:
    """Tokenised examples whose answer is a text.

    Attributes:
        ids: n names.
        tokens: n rows of ids, what is read.
        targets: n rows of ids, what is to be written, the end token last.
        lengths: of both together, [n].
        inputs: n names of inputs; rows with the same one bring references of one example.
        references: n texts.
    """

    ids: list[str]
    tokens: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]]
    lengths: NDArray[np.int64]
    inputs: list[str]
    references: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Token ids and mask, each [B, T], and targets [B, U], -1 after shorter ones; then the targets again."""
        ids, mask = padded([self.tokens[row] for row in rows])
        targets = padded([self.targets[row] for row in rows], pad=-1)[0].to(device)
        return (ids.to(device), mask.to(device), targets), targets

    def examples(self) -> dict[str, list[int]]:
        """`{input: its rows}` in the order in which inputs come first."""
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.inputs):
            found.setdefault(name, []).append(row)
        return found


def read_rows(folder: Path, marked: bool = True) -> Rows:
    """The rows of one split's shards, as `tokens/encode.py` wrote them.

    `marked` leaves in them where the prompt stands, if they say so; what has no prompt reads them without that.
    """
    shards = _shards(folder)
    labels = shards["label"].to_numpy().astype(np.int64)
    return Rows(shards["id"].to_pylist(), _tokens(shards, marked), labels, _lengths(shards))


def read_texts(folder: Path, marked: bool = True) -> TextRows:
    """The same where the examples have targets in the place of labels."""
    shards = _shards(folder)
    columns = {name: shards[name].to_pylist() for name in ("id", "target_ids", "input", "target")}
    return TextRows(
        columns["id"], _tokens(shards, marked), columns["target_ids"], _lengths(shards), columns["input"],
        columns["target"],
    )  # fmt: skip


def read_inputs(folder: Path, numbers: Sequence[int]) -> Rows:
    """What the base alone reads of the rows with these numbers, in their order; whatever the truth, labels are 0."""
    shards = _shards(folder, numbers)
    tokens = _tokens(shards, marked=False)
    lengths = np.array([len(row) for row in tokens], np.int64)
    return Rows(shards["id"].to_pylist(), tokens, np.zeros_like(lengths), lengths)


def _shards(folder: Path, numbers: Sequence[int] | None = None) -> Any:
    """The table of a split's shards; with `numbers` only these rows."""
    from datasets import Dataset

    rows = Dataset.load_from_disk(str(folder))
    return (rows if numbers is None else rows.select(numbers)).with_format("arrow")[:]


def _tokens(shards: Any, marked: bool) -> list[list[int]]:
    tokens: list[list[int]] = shards["input_ids"].to_pylist()
    return tokens if marked else [[token for token in row if token != MARKER] for row in tokens]


def _lengths(shards: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = shards["length"].to_numpy().astype(np.int64)
    return lengths
