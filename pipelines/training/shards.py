"""Token shards as the training loop reads them: rows of token ids and labels in memory, lengths beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


def read_rows(folder: Path, numbers: Sequence[int] | None = None, marked: bool = True) -> Rows:
    """The rows of one split's shards, as `tokens/encode.py` wrote them; with `numbers` only these, in their order.

    `marked` leaves in them where the prompt stands, if they say so; what has no prompt reads them without that.
    """
    from datasets import Dataset

    rows = Dataset.load_from_disk(str(folder))
    shards = (rows if numbers is None else rows.select(numbers)).with_format("arrow")[:]
    labels = shards["label"].to_numpy().astype(np.int64)
    lengths = shards["length"].to_numpy().astype(np.int64)
    tokens = shards["input_ids"].to_pylist()
    if not marked:
        tokens = [[token for token in row if token != MARKER] for row in tokens]
    return Rows(shards["id"].to_pylist(), tokens, labels, lengths)
