"""What of a text no prompt changes, read once: the text before a prompt, the layers below it, the encoder.

In a decoder what stands before a prompt does not depend on it: its keys and values are the same in every step. Below
the layer that a late prompt enters, hidden states are, in encoders too; and so is all that the encoder of an
encoder-decoder makes of a text, where its decoder reads the prompt. A step then runs the prompt and what comes
after it, or the layers above, and its gradients reach no further.

Each text is read alone, so that what is kept does not depend on its company: a training that finds it in the store, one
that has no room for it and reads it in every step, and one that resumes, all go the same way to the last bit.

Shapes: B rows, T positions read once, R positions of the rest with the marker, L layers, H_kv key/value heads of width
d_h, d hidden width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.inference.base import Base
from pipelines.inference.features import features
from pipelines.inference.forward import (
    entered_layer,
    hidden_states,
    keys_and_values,
    padded,
    pooled,
    states_at,
    states_from,
)
from pipelines.inference.label_words import must_be_read, scores_in_decoder
from pipelines.prompts.parameterisation import Placed
from pipelines.tokens.template import MARKER
from pipelines.training.activations import Activations, Room, digest_of
from pipelines.training.collective import world
from pipelines.training.decoder import fits, text_read
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned

VERSION = 2  # of what is kept; another one is read anew
BLOCK_BYTES = 64 * 2**20
Told = Callable[[int, int], None]  # how many texts of how many have been read


class BehindText(nn.Module):
    """A decoder's prompt with what comes after it, behind the keys and values of the text before it."""

    name = "keys-and-values"

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.tuned = tuned

    @cached_property
    def by_hand(self) -> bool:
        """Whether the written-out decoder reads this base's texts; asked when the first is read."""
        return fits(self.tuned.base)

    def part(self, row: Sequence[int]) -> Sequence[int]:
        """What of a row is read once."""
        return row[: row.index(MARKER)]

    def read(self, ids: Tensor) -> Tensor:
        """The keys and values [2, L, H_kv, T, d_h] of token ids [1, T]."""
        if not torch.is_autocast_enabled("cpu") and self.by_hand:
            return text_read(self.tuned.base, ids)
        return torch.stack(keys_and_values(self.tuned.base, ids))

    def inputs(self, rows: Sequence[Sequence[int]], kept: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
        """What `forward` takes: the rest of each row behind what was read of it."""
        ids, mask = padded([row[row.index(MARKER) :] for row in rows])
        lengths = torch.tensor([each.shape[3] for each in kept])
        longest = int(lengths.max())
        stacked = kept[0].new_zeros(*kept[0].shape[:2], len(kept), kept[0].shape[2], longest, kept[0].shape[4])
        for row, each in enumerate(kept):
            stacked[:, :, row, :, : each.shape[3]] = each
        present = torch.arange(longest) < lengths[:, None]
        return tuple(part.to(device) for part in (ids, mask, *stacked, present))

    def forward(self, input_ids: Tensor, mask: Tensor, keys: Tensor, values: Tensor, present: Tensor) -> Tensor:
        """Class logits [B, C] of rows [B, R] that begin with their marker.

        `keys` and `values` are [L, B, H_kv, T, d_h]; `present` [B, T] is False where a row has fewer of them.
        """
        assert self.tuned.prompt is not None
        before = {"keys": keys, "values": values, "present": present}
        read = features(self.tuned.base, input_ids, mask, self.tuned.prompt() | before, "last")
        return self.tuned.scores(read)


class FromLayer(nn.Module):
    """The layers from which a late prompt is read on, over the hidden states below them."""

    def __init__(self, tuned: Tuned, layer: int) -> None:
        super().__init__()
        self.tuned = tuned
        self.layer = layer

    @property
    def name(self) -> str:
        """What is kept."""
        return f"states-at-{self.layer}"

    def part(self, row: Sequence[int]) -> Sequence[int]:
        """What of a row is read once: all of it, so far up."""
        return row

    def read(self, ids: Tensor) -> Tensor:
        """The hidden states [T, d] of token ids [1, T]."""
        return states_at(self.tuned.base, ids, torch.ones_like(ids), self.layer)[0]

    def inputs(self, rows: Sequence[Sequence[int]], kept: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
        """What `forward` takes."""
        states = nn.utils.rnn.pad_sequence(list(kept), batch_first=True)
        return states.to(device), padded(rows)[1].to(device)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, C] of hidden states [B, T, d] and their mask [B, T]."""
        assert self.tuned.prompt is not None
        base, (vectors,) = self.tuned.base, self.tuned.prompt().values()
        above = states_from(base, states.to(base.embeddings.weight.dtype), mask, self.layer, vectors)
        return self.tuned.scores(pooled(above, mask, base.pooling))


class BehindEncoder(nn.Module):
    """The decoder of an encoder-decoder with its prompt, over what the encoder made of the text."""

    name = "encoder-states"

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.tuned = tuned

    def part(self, row: Sequence[int]) -> Sequence[int]:
        """What of a row is read once: all of it."""
        return row

    def read(self, ids: Tensor) -> Tensor:
        """The encoder's states [T, d] of token ids [1, T]."""
        return hidden_states(self.tuned.base, ids, torch.ones_like(ids), {})[0]

    def inputs(self, rows: Sequence[Sequence[int]], kept: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
        """What `forward` takes."""
        states = nn.utils.rnn.pad_sequence(list(kept), batch_first=True)
        return states.to(device), padded(rows)[1].to(device)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, C] of the encoder's states [B, T, d] and their mask [B, T]."""
        assert self.tuned.prompt is not None
        base = self.tuned.base
        states = states.to(base.embeddings.weight.dtype)
        return scores_in_decoder(base, states, mask, self.tuned.prompt(), self.tuned.head_tensors())


Above = BehindText | FromLayer | BehindEncoder


def above_what_is_kept(tuned: Tuned, rows: Sequence[Rows] = ()) -> Above | None:
    """What of a tuned base has to run in every step, over what can be read once of `rows`; None where nothing can.

    Label words that have to be read are said over the whole text: there everything runs in every step.
    """
    base, prompt = tuned.base, tuned.prompt
    place = prompt.name if isinstance(prompt, Placed) else None
    if place == "in_decoder":
        return BehindEncoder(tuned)
    if prompt is None or must_be_read(base, tuned.head_tensors()):
        return None
    if place == "inserted":
        begins = any(row[0] == MARKER for each in rows for row in each.tokens)
        return BehindText(tuned) if base.packs and _layers_are_alike(base) and not begins else None
    layer = entered_layer({name.rpartition(".")[2]: tensor for name, tensor in prompt.named_parameters()})
    return None if layer is None else FromLayer(tuned, layer)


def _layers_are_alike(base: Base) -> bool:
    return len({(layer.kv_heads, layer.head_width) for layer in base.layers}) == 1


@dataclass(frozen=True)
class ReadOnce:
    """Examples of which a part was read before: what is kept of it, and the rest; labels and lengths are [n]."""

    model: Above
    rows: Rows
    activations: Activations
    precision: str  # of the training: what is not kept is read in it
    exact: bool

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of the rows."""
        return self.rows.labels

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The lengths of the rows, what was read included: batches are the same whatever is kept."""
        return self.rows.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the model takes of some rows, and their labels [B]."""
        tokens = [self.rows.tokens[row] for row in rows]
        kept = [self._of(self.model.part(row)) for row in tokens]
        return self.model.inputs(tokens, kept, device), torch.from_numpy(self.rows.labels[rows]).to(device)

    def _of(self, part: Sequence[int]) -> Tensor:
        known = self.activations.get(digest_of(part))
        return known if known is not None else self.read(part)

    @torch.no_grad()
    def read(self, part: Sequence[int]) -> Tensor:
        """What the base makes of token ids, as exactly as it is kept, on the CPU."""
        device = self.model.tuned.base.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            made = self.model.read(torch.tensor([part], device=device))
        dtype = torch.promote_types(made.dtype, torch.float32) if self.exact else torch.bfloat16
        return made.to("cpu", dtype)


def read_once(
    model: Above, rows: Sequence[Rows], precision: str, kept: str, room: Room | None, told: Told
) -> list[ReadOnce]:
    """Each of `rows` with what has been read of it: from the store, else now, until there is no room.

    Several workers share the reading.

    Args:
        model: from `above_what_is_kept`.
        rows: splits.
        precision: of the training.
        kept: how exactly, `bf16` or `fp32`; the second is what was computed, and no less than float32.
        room: where; None: nowhere, so that every step reads.
        told: called after each text.
    """
    device = model.tuned.base.device.type
    activations = Activations(room, f"{model.name}-v{VERSION}-{precision}-{device}-kept-{kept}")
    made = [ReadOnce(model, each, activations, precision, kept == "fp32") for each in rows]
    parts = {digest_of(part): part for each in rows for part in map(model.part, each.tokens)}
    activations.look(list(parts))
    workers, rank = world()
    share = list(parts)[rank::workers]  # of all, since what is missing looks different once another has begun
    missing = {digest: parts[digest] for digest in share if activations.get(digest) is None}
    if room is not None:
        _fill(activations, made[0], missing, told)
    if workers > 1:
        dist.barrier()
        activations.look(list(parts))
    return made


def _fill(activations: Activations, reader: ReadOnce, parts: dict[str, Sequence[int]], told: Told) -> None:
    """Read texts and keep them, block by block."""
    block: dict[str, Tensor] = {}
    size = 0
    for number, (digest, part) in enumerate(parts.items(), 1):
        told(number, len(parts))
        block[digest] = reader.read(part)
        size += block[digest].nbytes
        if size >= BLOCK_BYTES or number == len(parts):
            if not activations.add(block):
                return
            block, size = {}, 0
