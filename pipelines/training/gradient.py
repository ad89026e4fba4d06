"""The gradient of one batch, summed over micro-batches where the memory asks for them: the step is the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.errors import TrainingError
from pipelines.training.batches import micro_batches
from pipelines.training.collective import world
from pipelines.training.frozen import Features
from pipelines.training.once import ReadOnce
from pipelines.training.sharding import average_gradients, is_sharded, most
from pipelines.training.shards import Rows, TextRows
from pipelines.training.state import generators, random_states, set_random_states
from pipelines.training.tuned import Tuned

Examples = Rows | TextRows | Features | ReadOnce


@dataclass
class Portion:
    """How many text positions a worker trains on at a time."""

    tokens: int  # 0: a batch at once
    note: str = ""  # what a person should know: that the memory did not hold as many as were asked for

    def halve(self, parts: Sequence[NDArray[np.int64]], lengths: NDArray[np.int64]) -> None:
        """Ask for half of the largest of these parts of a batch.

        Raises:
            TrainingError: each of them is a single row.
        """
        largest = max(parts, key=lambda part: len(part) * int(lengths[part].max()))
        positions = len(largest) * int(lengths[largest].max())
        if len(largest) == 1:
            raise TrainingError(
                f"The memory does not hold the training of one text of {positions} positions. Lower "
                "template.max_tokens or prompt.tokens, or give the worker more memory."
            )
        self.tokens = positions // 2
        self.note = f"out of memory: going on with micro-batches of {self.tokens} positions, the batch is the same"


def backward(
    parallel: nn.Module, tuned: Tuned, examples: Examples, batch: NDArray[np.int64], precision: str, portion: Portion
) -> Tensor:
    """This worker's part of a batch's loss, whose mean over workers is that of the batch; its gradient is added up.

    A batch that the memory does not hold begins anew in smaller micro-batches, with the same random numbers.

    Raises:
        TrainingError: the memory does not hold one row; or a part of it, where the base is cut over the workers.
    """
    workers, rank = world()
    share = batch[rank::workers]
    weight = workers / len(batch) if len(share) else 0.0  # the mean over workers then is one over the batch's rows
    share = share if len(share) else batch[:1]  # a worker without rows still takes part, with weight zero
    before = random_states(tuned)
    while True:
        parts = micro_batches(share, examples.lengths, portion.tokens)
        try:
            return _summed(parallel, tuned, examples, parts, weight, precision)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            trouble = str(error).splitlines()[0]
        if is_sharded(tuned):  # the other workers are in the middle of a block
            raise TrainingError(f"A worker is out of memory: {trouble}. Lower micro_tokens in the compute profile.")
        portion.halve(parts, examples.lengths)  # here, where no traceback holds the batch's tensors any more
        for _, parameter in tuned.trained():
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        set_random_states(tuned, before)


def _summed(
    parallel: nn.Module, tuned: Tuned, examples: Examples, parts: Sequence[NDArray[np.int64]], weight: float,
    precision: str,
) -> Tensor:  # fmt: skip
    """The loss of micro-batches, each with a gradient; what a prompt drops out is the same in all of them."""
    device = tuned.base.device
    idle = most(len(parts), device) - len(parts) if is_sharded(tuned) else 0
    drawn = [(generator, generator.get_state()) for _, generator in generators(tuned)]
    total = torch.zeros((), device=device)
    for number, part in enumerate([*parts, *[parts[0][:1]] * idle], 1):
        inputs, labels = examples.batch(part, device)
        for generator, state in drawn:
            generator.set_state(state)
        summing = isinstance(parallel, DistributedDataParallel) and number < len(parts)
        with parallel.no_sync() if summing else nullcontext():  # type: ignore[operator]
            with torch.autocast(labels.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = parallel(*inputs)
            loss = cross_entropy(logits, labels) * (weight if number <= len(parts) else 0.0)
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if is_sharded(tuned):  # else DDP has done it
        average_gradients(parameter for _, parameter in tuned.trained())
    return total


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over rows of the cross-entropy of logits [B, C] and labels [B], in float32 or better.

    Of targets [B, U] and the logits [N, vocabulary] of their N tokens it is each row's mean over its own tokens, so
    that long answers weigh as much as short ones, and a batch as much in parts as whole.
    """
    if labels.dim() == 2:
        return text_losses(logits, labels).sum()
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(precise, labels, reduction="sum")


def text_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's mean cross-entropy over the tokens of its target, [B]; the arguments are those of `cross_entropy`."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    said = targets >= 0
    return _row_means(nn.functional.cross_entropy(precise, targets[said], reduction="none"), said)


def guessed(logits: Tensor, targets: Tensor) -> Tensor:
    """Which share of each row's target tokens is the likeliest in its place, [B]."""
    said = targets >= 0
    return _row_means((logits.argmax(1) == targets[said]).float(), said)


def _row_means(values: Tensor, said: Tensor) -> Tensor:
    """Means [B] of values [N], one for each token that is `said` [B, U]."""
    rows = said.nonzero()[:, 0]
    return values.new_zeros(len(said)).index_add(0, rows, values) / said.sum(1)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory is used up, or the CPU's allocator got none from the system."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
