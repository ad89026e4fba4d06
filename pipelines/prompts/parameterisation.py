"""What is trained: modules that give a prompt's tensors, and end folded into plain ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Direct(nn.Module):
    """The prompt's tensors themselves (Lester et al. 2021, section 2; Liu et al. 2022, section 3.2)."""

    def __init__(self, start: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in start.items():
            self.register_parameter(name, nn.Parameter(tensor))

    def forward(self) -> dict[str, Tensor]:
        """The tensors to inject, by the names of `injection.py`."""
        return dict(self.named_parameters())


class Dropout(nn.Module):
    """A parameterisation some of whose numbers are left out at random in each training step.

    One mask serves the whole batch, and all workers draw the same one; a folded prompt has none. Srivastava et al.,
    "Dropout", JMLR 2014; the published code of P-Tuning v2 drops from its prefix too, with a mask per row.
    """

    def __init__(self, inner: nn.Module, rate: float, seed: int) -> None:
        super().__init__()
        self.inner = inner
        self.rate = rate
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self) -> dict[str, Tensor]:
        """The inner tensors, while training with a share `rate` of their numbers zero and the others scaled up."""
        tensors: dict[str, Tensor] = self.inner()
        return {name: tensor * self._mask(tensor) for name, tensor in tensors.items()} if self.training else tensors

    def _mask(self, tensor: Tensor) -> Tensor:
        kept = torch.rand(tensor.shape, generator=self.generator) >= self.rate
        return kept.to(tensor) / (1 - self.rate)
