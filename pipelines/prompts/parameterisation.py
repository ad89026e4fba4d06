"""What is trained: modules that give a prompt's tensors, and end folded into plain ones."""

from __future__ import annotations

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
