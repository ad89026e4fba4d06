"""The training loop: one method on one base, validation asked after every epoch.

The same batches whatever the number of workers: each worker takes its share of a global batch, and the gradient is that
of the mean over the whole of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.errors import TrainingError
from pipelines.recipe import Method, Optimisation
from pipelines.training.batches import epoch_batches, sorted_batches
from pipelines.training.frozen import Features, Head, features_of, only_head
from pipelines.training.selection import Selection
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned, train_mode

Report = Callable[[dict[str, Any]], None]
CURVE_POINTS = 200


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows and what validation said after it."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy over the epoch's steps, nats
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Trained:
    """How a training went; the tuned weights are those after `kept_epoch`."""

    epochs: list[Epoch]
    kept_epoch: int  # the last, unless an earlier one was better beyond chance
    steps: int
    seconds: float
    curve: list[tuple[int, float]]  # (step, loss), at most CURVE_POINTS of them, evenly spaced


def train(
    tuned: Tuned, method: Method, shared: Optimisation, seed: int, rows: Rows, validation: Rows, report: Report
) -> Trained:
    """Tune in place on `rows`, keeping the last epoch's weights unless `validation` proves an earlier one's better.

    Args:
        tuned: from `tune`, on its device.
        method: its rates and epochs.
        shared: what every method of the recipe shares.
        seed: orders the batches.
        rows: the training split.
        validation: the split that has a say in which epoch counts.
        report: called with the state of things about twice a second.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    start = reported = time.perf_counter()
    workers, rank = _world()
    model, examples, held_out = _reduced(tuned, rows, validation, shared)
    parallel: nn.Module = DistributedDataParallel(model) if workers > 1 else model
    epochs = method.epochs or shared.epochs
    steps_per_epoch = math.ceil(len(examples) / shared.batch_size)
    optimizer, schedule = _optimizer(tuned, method, shared, epochs * steps_per_epoch)
    train_mode(tuned, method)
    history: list[Epoch] = []
    selection, kept, kept_epoch = Selection(), dict[str, Tensor](), 0
    curve: list[tuple[int, float]] = []
    step = seen = 0

    for epoch in range(epochs):
        losses = []
        for batch in epoch_batches(examples.lengths, shared.batch_size, seed, epoch):
            share = batch[rank::workers]
            weight = len(share) * workers / len(batch)  # undoes the mean over workers of unequal shares
            share = share if len(share) else batch[:1]  # a worker without rows still takes part, with weight zero
            inputs, labels = examples.batch(share, tuned.base.device)
            with torch.autocast(labels.device.type, torch.bfloat16, enabled=shared.precision == "bf16"):
                logits = parallel(*inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels) * weight
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_((parameter for _, parameter in tuned.trained()), shared.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(mean_over_workers(loss.detach()))
            step += 1
            if step % math.ceil(epochs * steps_per_epoch / CURVE_POINTS) == 0:
                curve.append((step, losses[-1]))
            seen += len(batch)
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"The loss became {losses[-1]!r} at step {step} with rate {method.rate!r}. Lower the method's rate "
                    "or set training.precision = 'fp32'."
                )
            if (now := time.perf_counter()) - reported > 0.5:
                reported = now
                rate = seen / (now - start)
                report({"epoch": epoch + 1, "step": step, "steps": epochs * steps_per_epoch, "loss": losses[-1],
                        "examples_per_s": rate, "seconds_left": (epochs * len(examples) - seen) / rate})  # fmt: skip
        correct, validation_loss = validate(model, held_out, shared, tuned.base.device)
        train_mode(tuned, method)
        accuracy = float(correct.double().mean())
        history.append(Epoch(epoch + 1, sum(losses) / len(losses), validation_loss, accuracy))
        if selection.takes(correct):
            kept, kept_epoch = {name: tensor.detach().clone() for name, tensor in tuned.trained()}, epoch + 1
        report({"epoch": epoch + 1, "step": step, "steps": epochs * steps_per_epoch, **asdict(history[-1])})

    tuned.restore(kept)
    tuned.eval()
    return Trained(history, kept_epoch, step, time.perf_counter() - start, curve)


@torch.no_grad()
def validate(
    model: nn.Module, rows: Rows | Features, shared: Optimisation, device: torch.device
) -> tuple[Tensor, float]:
    """Which rows were answered right, [n] bool, and the mean cross-entropy; every worker scores its share."""
    workers, rank = _world()
    model.eval()
    correct = torch.zeros(len(rows), dtype=torch.uint8, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for batch in sorted_batches(rows.lengths, 2 * shared.batch_size)[rank::workers]:
        inputs, labels = rows.batch(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=shared.precision == "bf16"):
            logits = model(*inputs).float()
        correct[torch.from_numpy(batch).to(device)] = (logits.argmax(1) == labels).to(torch.uint8)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
    if workers > 1:
        for part in (correct, loss):  # each row was scored by one worker alone
            dist.all_reduce(part)
    return correct.bool().cpu(), float(loss) / len(rows)


@torch.no_grad()
def logits_of(tuned: Tuned, rows: Rows, batch_size: int) -> Tensor:
    """Class logits [n, C] of every row in float32, in the rows' order."""
    tuned.eval()
    batches = sorted_batches(rows.lengths, batch_size)
    parts = [tuned(*rows.batch(batch, tuned.base.device)[0]).float().cpu() for batch in batches]
    logits = torch.empty(len(rows), parts[0].shape[1])
    for batch, part in zip(batches, parts, strict=True):
        logits[torch.from_numpy(batch)] = part
    return logits


def mean_over_workers(value: Tensor) -> float:
    """The mean of a scalar over all workers: the same number on each."""
    workers, _ = _world()
    if workers > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= workers
    return float(value)


def _reduced(
    tuned: Tuned, rows: Rows, validation: Rows, shared: Optimisation
) -> tuple[nn.Module, Rows | Features, Rows | Features]:
    """What has to run in every step, and on what: only a head over its features where nothing else is trained."""
    if not only_head(tuned):
        return tuned, rows, validation
    size, precision = 2 * shared.batch_size, shared.precision
    return Head(tuned), features_of(tuned, rows, size, precision), features_of(tuned, validation, size, precision)


def _world() -> tuple[int, int]:
    """How many workers there are, and which of them this is."""
    return (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)


def _optimizer(
    tuned: Tuned, method: Method, shared: Optimisation, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over what is trained, the head at its own rate; linear warm-up, then linearly down to zero."""
    head = [parameter for name, parameter in tuned.trained() if name.startswith("head.")]
    body = [parameter for name, parameter in tuned.trained() if not name.startswith("head.")]
    groups = [{"params": body, "lr": method.rate}, {"params": head, "lr": method.head_rate or method.rate}]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=shared.weight_decay, fused=True)
    rise = max(1, round(shared.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))
    )
    return optimizer, schedule
