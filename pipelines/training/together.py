"""Several soft prompts tuned together, in one forward pass: seeds, rates and starts side by side on one frozen base.

Rows of one batch may carry different prompts. Each prompt keeps what it has alone: the order of its rows, its head, its
optimizer, its clipping and its schedule; so each ends as it would alone, up to rounding.

Shapes: K prompts, B_k rows of the k-th in a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.errors import RecipeError
from pipelines.inference.base import Base
from pipelines.inference.features import features
from pipelines.inference.forward import read_once
from pipelines.inference.label_words import must_be_read
from pipelines.recipe import Optimisation, Prompt
from pipelines.training.batches import epoch_batches, sorted_batches
from pipelines.training.decoder import is_short, last_states, written_out
from pipelines.training.gradient import cross_entropy
from pipelines.training.loop import CURVE_POINTS, Trained, new_optimizer, new_schedule
from pipelines.training.selection import Selection
from pipelines.training.shards import Rows
from pipelines.training.state import Epoch
from pipelines.training.tuned import Tuned, train_mode


@dataclass
class Member:
    """One prompt of a sweep, from `tune`, and how its training goes."""

    tuned: Tuned
    settings: Prompt
    seed: int  # orders its batches
    loss: float = 0.0  # the sum over this epoch's steps
    history: list[Epoch] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    kept_epoch: int = 0
    selection: Selection = field(default_factory=Selection)


def train_together(members: Sequence[Member], shared: Optimisation, rows: Rows, validation: Rows) -> list[Trained]:
    """Tune all members in place, each as `loop.train` would alone; how each went, in their order.

    Args:
        members: on one base, of prompts of one shape, with equally many epochs.
        shared: what they share.
        rows: the training split, for each of them in the order of its own seed.
        validation: the split that has a say in which epoch of each counts.

    Raises:
        RecipeError: the members do not fit into one forward pass.
    """
    start = time.perf_counter()
    epochs = _checked(members, shared)
    by_hand = shared.precision == "fp32" and written_out(members[0].tuned) is not None
    steps_per_epoch = math.ceil(len(rows) / shared.batch_size)
    steps = epochs * steps_per_epoch
    optimizers = [new_optimizer(member.tuned, member.settings, shared) for member in members]
    schedules = [new_schedule(optimizer, shared, steps, 0) for optimizer in optimizers]
    for epoch in range(epochs):
        for member in members:
            train_mode(member.tuned, member.settings)
        orders = [epoch_batches(rows.lengths, shared.batch_size, member.seed, epoch) for member in members]
        for step, batches in enumerate(zip(*orders, strict=True), epoch * steps_per_epoch + 1):
            sums = _losses(members, rows, batches, shared, by_hand)
            losses = [loss / len(batch) for loss, batch in zip(sums, batches, strict=True)]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            for member, loss, optimizer, schedule in zip(members, losses, optimizers, schedules, strict=True):
                nn.utils.clip_grad_norm_((parameter for _, parameter in member.tuned.trained()), shared.clip)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                member.loss += float(loss.detach())
                if step % math.ceil(steps / CURVE_POINTS) == 0:
                    member.curve.append((step, float(loss.detach())))
        scored = _validate(members, validation, shared, by_hand)
        for member, (correct, validation_loss) in zip(members, scored, strict=True):
            _finish_epoch(member, correct, validation_loss, steps_per_epoch)
    seconds = time.perf_counter() - start
    for member in members:
        member.tuned.restore(member.kept)
        member.tuned.eval()
    return [Trained(member.history, member.kept_epoch, steps, seconds, member.curve) for member in members]


def logits_together(
    members: Sequence[Member], rows: Rows, batches: Sequence[NDArray[np.int64]], by_hand: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Class logits [B_k, C] and labels [B_k] of each member's rows, in one pass, `by_hand` that of `decoder.py`."""
    base, sizes = members[0].tuned.base, [len(batch) for batch in batches]
    (ids, mask), labels = rows.batch(np.concatenate(batches), base.device)
    prompts = _stacked([_prompt(member) for member in members])
    if by_hand and is_short(mask, prompts):
        parts = list(zip(torch.split(ids, sizes), torch.split(mask, sizes), strict=True))
        read = torch.split(last_states(base, parts, prompts), sizes)
    else:
        pooling = "last" if "word_ids" in members[0].tuned.head_tensors() else base.pooling
        read = torch.split(features(base, ids, mask, _per_row(base, prompts, sizes), pooling), sizes)
    return [member.tuned.scores(each) for member, each in zip(members, read, strict=True)], list(
        torch.split(labels, sizes)
    )


def _stacked(prompts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The prompts of all: [K, P, d], or keys and values [L, K, H_kv, P, d_h]."""
    each = {name: torch.stack([prompt[name] for prompt in prompts]) for name in prompts[0]}
    return {name: tensor.transpose(0, 1) if name in ("keys", "values") else tensor for name, tensor in each.items()}


def _per_row(base: Base, prompts: dict[str, Tensor], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Each row's own prompt: [B, P, d], or keys and values [L, B, H_kv, P, d_h]."""
    read = read_once(base, prompts)
    place = 1 if "keys" in read else 0

    def spread(tensor: Tensor) -> Tensor:
        ones = torch.split(tensor, 1, dim=place)
        return torch.cat([one.expand(*one.shape[:place], size, *one.shape[place + 1 :])
                          for one, size in zip(ones, sizes, strict=True)], dim=place)  # fmt: skip

    return {name: spread(tensor) for name, tensor in read.items()}


def _prompt(member: Member) -> dict[str, Tensor]:
    assert member.tuned.prompt is not None
    tensors: dict[str, Tensor] = member.tuned.prompt()
    return tensors


def _losses(
    members: Sequence[Member], rows: Rows, batches: Sequence[NDArray[np.int64]], shared: Optimisation, by_hand: bool
) -> list[Tensor]:
    """The sum of cross-entropies over each member's rows."""
    device = members[0].tuned.base.device
    with torch.autocast(device.type, torch.bfloat16, enabled=shared.precision == "bf16"):
        logits, labels = logits_together(members, rows, batches, by_hand)
    return [cross_entropy(*both) for both in zip(logits, labels, strict=True)]


@torch.no_grad()
def _validate(members: Sequence[Member], rows: Rows, shared: Optimisation, by_hand: bool) -> list[tuple[Tensor, float]]:
    """For each member which rows it answered right, [n] bool, and its mean cross-entropy."""
    device = members[0].tuned.base.device
    for member in members:
        member.tuned.eval()
    correct = torch.zeros(len(members), len(rows), dtype=torch.bool)
    losses = torch.zeros(len(members), dtype=torch.float64)
    for batch in sorted_batches(rows.lengths, math.ceil(2 * shared.batch_size / len(members))):
        with torch.autocast(device.type, torch.bfloat16, enabled=shared.precision == "bf16"):
            logits, labels = logits_together(members, rows, [batch] * len(members), by_hand)
        for number, (each, right) in enumerate(zip(logits, labels, strict=True)):
            correct[number, torch.from_numpy(batch)] = (each.argmax(1) == right).cpu()
            losses[number] += cross_entropy(each, right).double().cpu()
    return list(zip(correct, (losses / len(rows)).tolist(), strict=True))


def _finish_epoch(member: Member, correct: Tensor, validation_loss: float, steps: int) -> None:
    """Write down how an epoch went, and keep its weights where they count so far."""
    number = len(member.history) + 1
    accuracy = float(correct.double().mean())
    member.history.append(Epoch(number, member.loss / steps, validation_loss, accuracy))
    member.loss = 0.0
    if member.selection.takes(correct):
        member.kept = {name: parameter.detach().clone() for name, parameter in member.tuned.trained()}
        member.kept_epoch = number


def _checked(members: Sequence[Member], shared: Optimisation) -> int:
    """How many epochs all members have."""
    for member in members:
        member.tuned.eval()  # dropout must not draw yet
    shapes = {tuple((name, tuple(tensor.shape)) for name, tensor in _prompt(member).items()) for member in members}
    epochs = {member.settings.epochs or shared.epochs for member in members}
    bases = {id(member.tuned.base) for member in members}
    names = {name for shape in shapes for name, _ in shape}
    if names not in ({"embeddings"}, {"keys", "values"}) or must_be_read(
        members[0].tuned.base, members[0].tuned.head_tensors()
    ):
        raise RecipeError(
            f"Prompts of {sorted(names)!r} with their head do not train in one forward pass; prompts before the text "
            "that are the same for every text do, with a linear head or label words of one token on a decoder."
        )
    if len(shapes) != 1 or len(epochs) != 1 or len(bases) != 1:
        raise RecipeError(
            f"Prompts of shapes {sorted(shapes)!r} with {sorted(epochs)!r} epochs on {len(bases)} bases do not fit "
            "into one forward pass: all need one shape, as many epochs, and one base. Train them in groups."
        )
    return epochs.pop()
