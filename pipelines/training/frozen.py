"""What of a forward pass no training can change, computed once instead of once per epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.inference.base import Base
from pipelines.inference.forward import hidden_states, pooled
from pipelines.training.batches import in_rows_order
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned


@dataclass(frozen=True)
class Features:
    """Examples as their head sees them: pooled hidden states [n, d], with labels and lengths [n]."""

    features: Tensor
    labels: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[tuple[Tensor], Tensor]:
        """Features [B, d] and labels [B] of some rows."""
        return (self.features[rows].to(device),), torch.from_numpy(self.labels[rows]).to(device)


class Head(nn.Module):
    """The head of a tuned base, over features; the base is behind it, and does not run."""

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.tuned = tuned

    def forward(self, features: Tensor) -> Tensor:
        """Class logits [B, C] of features [B, d]."""
        return self.tuned.scores(features)


def only_head(tuned: Tuned) -> bool:
    """Whether nothing before the head is trained, so that its features never change."""
    return all(name.startswith("head.") for name, _ in tuned.trained())


@torch.no_grad()
def features_of(tuned: Tuned, rows: Rows, batch_size: int, precision: str) -> Features:
    """The features of every row, in the rows' order, computed in the precision of the training."""
    tuned.eval()
    device = tuned.base.device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        features = in_rows_order(lambda batch: tuned.features(*rows.batch(batch, device)[0]), rows.lengths, batch_size)
    return Features(features, rows.labels, rows.lengths)


@torch.no_grad()
def states_of(base: Base, rows: Rows, batch_size: int) -> Tensor:
    """The untouched base's last hidden states [n, d] of every row, the mean over its positions, in the rows' order."""
    if not len(rows):
        return torch.empty(0, base.hidden_width)

    def states(batch: NDArray[np.int64]) -> Tensor:
        ids, mask = rows.batch(batch, base.device)[0]
        return pooled(hidden_states(base, ids, mask, {}), mask, "mean")

    return in_rows_order(states, rows.lengths, batch_size)
