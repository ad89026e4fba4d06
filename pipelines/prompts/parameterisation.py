"""What is trained: modules that give a prompt's tensors, and end folded into plain ones.

Each module's forward takes nothing and gives the tensors to inject, by the names of `injection.py`. Encoders are used
while training only: an artifact holds what they gave, never them. Their layers start as PyTorch starts them. What makes
a prompt from each text is no encoder: its tensors are injected themselves, and `inference/instance.py` applies them.

Shapes: P prompt tokens, d hidden width of the base, m hidden width of an encoder, L layers, H_kv key/value heads of
width d_h.
"""

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


class Encoded(nn.Module):
    """A table E [P, d] through a bidirectional LSTM and an MLP, or through the MLP alone, to embeddings [P, d].

    MLP(h) = W_2 ReLU(W_1 h + b_1) + b_2, where h is a row of E, or what the LSTM says at its place: two layers, m / 2
    numbers each way, rounded up. Liu et al., "GPT Understands, Too", AI Open 2023 (first 2021), on its prompt encoder.
    """

    def __init__(self, table: Tensor, hidden: int, recurrent: bool) -> None:
        super().__init__()
        width = table.shape[1]
        each_way = -(-hidden // 2)
        self.table = nn.Parameter(table)
        self.lstm = nn.LSTM(width, each_way, num_layers=2, bidirectional=True) if recurrent else None
        self.mlp = nn.Sequential(
            nn.Linear(2 * each_way if recurrent else width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self) -> dict[str, Tensor]:
        """`embeddings` [P, d]."""
        states = self.table if self.lstm is None else self.lstm(self.table)[0]
        return {"embeddings": self.mlp(states)}


class Prefix(nn.Module):
    """A table E [P, d] through an MLP to the keys and values of every layer.

    Row i of E becomes W_2 tanh(W_1 e_i + b_1) + b_2, which is its 2 * L * H_kv * d_h keys and values. Li and Liang,
    "Prefix-Tuning", ACL 2021, section 4.3; as in their published code the table is as wide as the base.
    """

    def __init__(self, table: Tensor, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape  # L, H_kv, P, d_h
        layers, heads, _, width = shape
        self.table = nn.Parameter(table)
        self.mlp = nn.Sequential(
            nn.Linear(table.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, 2 * layers * heads * width)
        )

    def forward(self) -> dict[str, Tensor]:
        """`keys` and `values` [L, H_kv, P, d_h]."""
        layers, heads, tokens, width = self.shape
        both = self.mlp(self.table).view(tokens, 2, layers, heads, width).permute(1, 2, 3, 0, 4)
        return {"keys": both[0], "values": both[1]}


class Residual(nn.Module):
    """A table E [P, d], and what a small network shared by its rows adds to each of them.

    e_i + LayerNorm(W_up ReLU(W_down e_i)): without biases the scale of E hardly decides what is added. Razdaibiedina
    et al., "Residual Prompt Tuning: Improving Prompt Tuning with Residual Reparameterization", Findings of ACL 2023.
    """

    def __init__(self, table: Tensor, bottleneck: int) -> None:
        super().__init__()
        width = table.shape[1]
        self.table = nn.Parameter(table)
        self.network = nn.Sequential(
            nn.Linear(width, bottleneck, bias=False),
            nn.ReLU(),
            nn.Linear(bottleneck, width, bias=False),
            nn.LayerNorm(width),
        )

    def forward(self) -> dict[str, Tensor]:
        """`embeddings` [P, d]."""
        return {"embeddings": self.table + self.network(self.table)}


class Superposition(nn.Module):
    """Vectors that are weighted sums of k token embeddings F [k, d], each with changes of its own to them.

    p_i = (F + D_i)^T w_i, no softmax over w_i; trained are w_i [k] and D_i [k, d], which starts at zero, while F is
    frozen. SadraeiJavaeri et al., "SuperPos-Prompt: Enhancing Soft Prompt Tuning of Language Models with Superposition
    of Multi Token Embeddings", ENLSP workshop at NeurIPS 2024.
    """

    basis: Tensor

    def __init__(self, basis: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("basis", basis)
        self.weights = nn.Parameter(weights)
        self.changes = nn.Parameter(torch.zeros(len(weights), *basis.shape))

    def forward(self) -> dict[str, Tensor]:
        """`embeddings` [P, d]."""
        return {"embeddings": torch.einsum("pk,pkd->pd", self.weights, self.basis + self.changes)}


def gate(tokens: int, width: int, hidden: int, rank: int) -> dict[str, Tensor]:
    """The start of an instance gate's two networks: weights from N(0, 0.02), biases zero.

    Such a gate lets half of the table pass, whatever the text. Jain et al. 2024 (LoPA); names of `instance.py`.
    """
    tensors = {}
    for name, rows in {"gate_u": tokens, "gate_v": width}.items():
        tensors[f"{name}_in"] = torch.randn(hidden, width) * 0.02
        tensors[f"{name}_in_bias"] = torch.zeros(hidden)
        tensors[f"{name}_out"] = torch.randn(rows * rank, hidden) * 0.02
        tensors[f"{name}_out_bias"] = torch.zeros(rows * rank)
    return tensors


def offsets(positions: int, rank: int, width: int) -> dict[str, Tensor]:
    """The start of the offsets A B [S, d]: A as PyTorch starts a linear layer, B zero, so that nothing is added yet.

    Shi and Lipani 2024 (DePT); names of `instance.py`.
    """
    a = nn.init.kaiming_uniform_(torch.empty(positions, rank), a=5**0.5)
    return {"offsets_a": a, "offsets_b": torch.zeros(rank, width)}


def generator(layers: int, width: int, rank: int) -> dict[str, Tensor]:
    """The start of a prompt generator's projections in each layer: as PyTorch starts linear layers.

    Zhu et al. 2024 (IAPT); names of `instance.py`.
    """
    tensors = {}
    for name, read, given in (("pool_down", width, rank), ("pool_up", rank, width)):
        drawn = [nn.Linear(read, given) for _ in range(layers)]
        tensors[name] = torch.stack([each.weight.detach() for each in drawn])
        tensors[f"{name}_bias"] = torch.stack([each.bias.detach() for each in drawn])
    return tensors


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


class Placed(nn.Module):
    """A prompt of vectors that does not stand before the text, but where its name says, by those of `injection.py`.

    `inserted`: where a row has its marker. `in_decoder`: before what the decoder of an encoder-decoder says.
    """

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner = inner
        self.name = name

    def forward(self) -> dict[str, Tensor]:
        """The vectors [P, d] under their name."""
        return {self.name: self.inner()["embeddings"]}
