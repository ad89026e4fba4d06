"""The training loop: one method on one base, validation asked after every epoch.

The same batches whatever the number of workers: each worker takes its share of a global batch, and the gradient is that
of the mean over the whole of it. An interrupted training goes on from its checkpoint to the same end, bit by bit.
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

from pipelines.inference.generation import texts_written
from pipelines.recipe import Method, Optimisation, Prompt
from pipelines.training.activations import Room
from pipelines.training.batches import epoch_batches, in_rows_order, sorted_batches
from pipelines.training.checkpoint import Keeper
from pipelines.training.collective import agreed, world
from pipelines.training.decoder import written_out
from pipelines.training.divergence import check_course, check_number, is_far_up
from pipelines.training.frozen import Head, features_of, only_head
from pipelines.training.gradient import Examples, Portion, backward, cross_entropy, guessed, text_losses
from pipelines.training.once import Told, above_what_is_kept, read_once
from pipelines.training.selection import stalled
from pipelines.training.sharding import is_sharded
from pipelines.training.shards import Rows, TextRows
from pipelines.training.state import Epoch
from pipelines.training.tuned import Tuned, train_mode

Report = Callable[[dict[str, Any]], None]
CURVE_POINTS = 200


@dataclass(frozen=True)
class Validated:
    """What the validation split says after an epoch.

    Attributes:
        good: by row, what epochs are compared by, [n]: whether it was answered right; of texts, minus its loss.
        loss: the mean cross-entropy.
        accuracy: the share of rows answered right; of texts, of target tokens that were the likeliest, a row's mean.
    """

    good: Tensor
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """How a training went; the tuned weights are those after `kept_epoch`."""

    epochs: list[Epoch]
    kept_epoch: int  # the last, unless an earlier one was better beyond chance
    steps: int
    seconds: float
    curve: list[tuple[int, float]]  # (step, loss), at most CURVE_POINTS of them, evenly spaced


def train(
    tuned: Tuned,
    method: Method,
    shared: Optimisation,
    seed: int,
    rows: Rows | TextRows,
    validation: Rows | TextRows,
    report: Report,
    keeper: Keeper | None = None,
    micro_tokens: int = 0,
    room: Room | None = None,
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
        keeper: of this training's checkpoints; none: nothing is kept, and nothing is gone on with.
        micro_tokens: of which batches are cut into micro-batches, whose gradients are summed; 0: batches stay whole.
            What the memory does not hold is cut further.
        room: for what of the texts no prompt changes; none: that is computed in every step.

    Raises:
        DivergedError: the loss is no longer a number, or stays far above where it began.
        TrainingError: the memory does not hold the training of one row.
        KeyboardInterrupt: the keeper was asked to stop, and has kept a checkpoint.
    """
    start = reported = time.perf_counter()
    keeper = keeper or Keeper()
    workers, _ = world()

    def read(texts: int, of: int) -> None:
        nonlocal reported
        if keeper.asked_to_stop:
            raise KeyboardInterrupt(f"Asked to stop: ended after reading {texts} of {of} texts; most of them are kept.")
        if (now := time.perf_counter()) - reported > 0.5:
            reported = now
            report({"read": texts, "texts": of})

    model, examples, held_out = _reduced(tuned, method, rows, validation, shared, room, read)
    parallel: nn.Module = DistributedDataParallel(model) if workers > 1 and not is_sharded(tuned) else model
    epochs = method.epochs or shared.epochs
    steps_per_epoch = math.ceil(len(examples) / shared.batch_size)
    steps = epochs * steps_per_epoch
    optimizer = new_optimizer(tuned, method, shared)
    state = keeper.resume(tuned, optimizer)
    schedule = new_schedule(optimizer, shared, steps, state.step)
    portion = Portion(state.micro_tokens or micro_tokens)  # what the memory held before an interruption, it holds again
    begun, start = time.perf_counter(), start - state.seconds
    seen = tokens = 0

    def keep(stop: bool) -> None:
        state.seconds, state.micro_tokens = time.perf_counter() - start, portion.tokens
        keeper.keep(state, tuned, optimizer)
        if stop:
            raise KeyboardInterrupt(f"Asked to stop: ended after step {state.step}. The same command goes on from it.")

    def pause() -> None:
        """Between two batches of validation nothing is half-done; several workers are not all between two at a time."""
        if keeper.asked_to_stop and workers == 1:
            keep(stop=True)

    def note() -> str:
        return "; ".join(filter(None, (keeper.note, portion.note)))

    for epoch in range(len(state.history), epochs):
        if stalled([each.validation_loss for each in state.history], shared.patience):
            break
        train_mode(tuned, method)
        batches = epoch_batches(examples.lengths, shared.batch_size, seed, epoch)
        for batch in batches[state.step - epoch * steps_per_epoch :]:
            loss = backward(parallel, tuned, examples, batch, shared.precision, portion)
            nn.utils.clip_grad_norm_((parameter for _, parameter in tuned.trained()), shared.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            mean, (due, stop) = agreed(loss, keeper.due(), keeper.asked_to_stop)
            state.step += 1
            state.loss += mean
            if state.step % math.ceil(steps / CURVE_POINTS) == 0:
                state.curve.append((state.step, mean))
            seen, tokens = seen + len(batch), tokens + int(examples.lengths[batch].sum())
            check_number("loss", mean, state.step, method, keeper)
            check_course(state.curve, method, keeper)
            if (due and not is_far_up(state.curve)) or stop:
                keep(stop)
            if (now := time.perf_counter()) - reported > 0.5:
                reported = now
                rate = seen / (now - begun)
                left = (1 - state.step / steps) * epochs * len(examples) / rate
                report({"epoch": epoch + 1, "step": state.step, "steps": steps, "loss": mean, "note": note(),
                        "rate": optimizer.param_groups[0]["lr"], "examples_per_s": rate,
                        "tokens_per_s": tokens / (now - begun), "seconds_left": left})  # fmt: skip
        told = validate(model, held_out, shared, tuned.base.device, pause)
        check_number("validation loss", told.loss, state.step, method, keeper)
        state.history.append(Epoch(epoch + 1, state.loss / steps_per_epoch, told.loss, told.accuracy))
        state.loss = 0.0
        if state.selection.takes(told.good):
            state.kept = {name: parameter.detach().clone() for name, parameter in tuned.trained()}
            state.kept_epoch = epoch + 1
        report({"epoch": epoch + 1, "step": state.step, "steps": steps, "note": note(),
                **asdict(state.history[-1])})  # fmt: skip

    tuned.restore(state.kept)
    tuned.eval()
    return Trained(state.history, state.kept_epoch, state.step, time.perf_counter() - start, state.curve)


@torch.no_grad()
def validate(
    model: nn.Module,
    rows: Examples,
    shared: Optimisation,
    device: torch.device,
    pause: Callable[[], None] = lambda: None,
) -> Validated:
    """How the rows were answered; every worker scores its share. `pause` is called on the way."""
    texts = isinstance(rows, TextRows)
    workers, rank = world()
    model.eval()
    right = torch.zeros(len(rows), device=device)
    minus_loss = torch.zeros(len(rows) if texts else 0, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    batches = sorted_batches(rows.lengths, 2 * shared.batch_size)
    mine = batches[rank::workers]
    idle = math.ceil(len(batches) / workers) - len(mine) if is_sharded(model) else 0
    for number, batch in enumerate([*mine, *[batches[0][:1]] * idle]):
        pause()
        inputs, labels = rows.batch(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=shared.precision == "bf16"):
            logits = model(*inputs)
        if number >= len(mine):
            continue  # run because the others ran
        places = torch.from_numpy(batch).to(device)
        if texts:
            right[places], minus_loss[places] = guessed(logits, labels), -text_losses(logits, labels).float()
        else:
            right[places] = (logits.argmax(1) == labels).float()
        loss += cross_entropy(logits, labels).double()
    if workers > 1:
        for part in (right, minus_loss, loss):  # each row was scored by one worker alone
            dist.all_reduce(part)
    good = minus_loss.cpu() if texts else right.bool().cpu()
    return Validated(good, float(loss) / len(rows), float(right.cpu().double().mean()))


@torch.no_grad()
def logits_of(tuned: Tuned, rows: Rows, batch_size: int) -> Tensor:
    """Class logits [n, C] of every row in float32, in the rows' order."""
    tuned.eval()
    return in_rows_order(lambda batch: tuned(*rows.batch(batch, tuned.base.device)[0]), rows.lengths, batch_size)


@torch.no_grad()
def texts_of(tuned: Tuned, tokenizer: Any, rows: TextRows, most: int, batch_size: int) -> list[str]:
    """What is written for every different input, in the order of `rows.examples()`; at most `most` tokens each."""
    tuned.eval()
    asked = [rows.tokens[first] for first, *_ in rows.examples().values()]
    return texts_written(tuned.base, tokenizer, asked, tuned.folded(), tuned.head_tensors(), most, batch_size)


def _reduced(
    tuned: Tuned, method: Method, rows: Rows | TextRows, validation: Rows | TextRows, shared: Optimisation,
    room: Room | None, told: Told,
) -> tuple[nn.Module, Examples, Examples]:  # fmt: skip
    """What has to run in every step, and on what: not what of the base neither prompt nor head can change."""
    if isinstance(rows, TextRows) or isinstance(validation, TextRows):
        return tuned, rows, validation
    if is_sharded(tuned):  # all that reads the base stands inside its forward
        return tuned, rows, validation
    size, precision = 2 * shared.batch_size, shared.precision
    if only_head(tuned):
        return Head(tuned), features_of(tuned, rows, size, precision), features_of(tuned, validation, size, precision)
    if not isinstance(method, Prompt):
        return tuned, rows, validation
    above = above_what_is_kept(tuned, (rows, validation))
    if above is None:
        faster = written_out(tuned) if precision == "fp32" else None
        return faster or tuned, rows, validation
    train, held_out = read_once(above, (rows, validation), precision, method.activations, room, told)
    return above, train, held_out


def new_optimizer(tuned: Tuned, method: Method, shared: Optimisation) -> torch.optim.Optimizer:
    """AdamW over what is trained, all that has one at its own rate."""
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in tuned.trained():
        parts.setdefault(method.rate_of(name), []).append(parameter)
    groups = [{"params": part, "lr": rate, "initial_lr": rate} for rate, part in parts.items()]
    return torch.optim.AdamW(groups, weight_decay=shared.weight_decay, fused=True)


def new_schedule(
    optimizer: torch.optim.Optimizer, shared: Optimisation, steps: int, done: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then linearly down to zero, after as many steps as are done already."""
    rise = max(1, round(shared.warmup * steps))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise))),
        last_epoch=done - 1,
    )
