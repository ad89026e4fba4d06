"""The state of a training between two steps: all that decides how it goes on, as tensors by name and as JSON.

    trained/NAME        what is trained
    kept/NAME           the same as it was after the epoch that is kept so far
    selection/best      how good the best epoch so far was on each validation example
    optimizer/KEY/NAME  what AdamW keeps of it: moments and the number of steps
    generator/NAME      the random numbers of a module of its own, a prompt's dropout: the same on every worker
    random/KIND/RANK    torch's global random numbers on one worker, of the CPU and of its GPU

The learning rate, the epoch and the place in it follow from the number of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipelines.prompts.parameterisation import Dropout
from pipelines.training.collective import gathered, world
from pipelines.training.selection import Selection
from pipelines.training.tuned import Tuned

FORMAT = 1  # raise it when other code would read a state differently


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows and what validation said after it."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy over the epoch's steps, nats
    validation_loss: float
    validation_accuracy: float  # of texts: of target tokens, given those before them


@dataclass
class State:
    """How far a training is. An epoch is over when it stands in `history`."""

    step: int = 0  # how many were made
    loss: float = 0.0  # the sum over this epoch's steps
    seconds: float = 0.0  # spent so far, interruptions left out
    history: list[Epoch] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)
    kept: dict[str, Tensor] = field(default_factory=dict)  # what was trained, as of `kept_epoch`
    kept_epoch: int = 0
    selection: Selection = field(default_factory=Selection)
    micro_tokens: int = 0  # the positions at a time that the memory holds, 0: all of a batch


def packed(state: State, tuned: Tuned, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, on the CPU, and what is JSON. Every worker must call it; each gets the same."""
    tensors = {f"kept/{name}": tensor for name, tensor in state.kept.items()}
    if state.selection.best is not None:
        tensors["selection/best"] = state.selection.best
    for name, parameter in tuned.trained():
        tensors[f"trained/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    for name, generator in generators(tuned):
        tensors[f"generator/{name}"] = generator.get_state()
    for kind, numbers in _random(tuned.base.device).items():
        for rank, of_worker in enumerate(gathered(numbers, tuned.base.device)):
            tensors[f"random/{kind}/{rank}"] = of_worker
    facts = {
        "format": FORMAT, "machine": machine(tuned), "step": state.step, "loss": state.loss, "seconds": state.seconds,
        "history": [asdict(epoch) for epoch in state.history], "curve": state.curve, "kept_epoch": state.kept_epoch,
        "micro_tokens": state.micro_tokens,
    }  # fmt: skip
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, facts


def unpacked(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], tuned: Tuned, optimizer: torch.optim.Optimizer
) -> State:
    """The state that was packed, its weights, moments and random numbers put back to where they were taken from.

    A worker that had no part in it keeps the random numbers that it has.
    """
    device, (_, rank) = tuned.base.device, world()
    tuned.restore(_below(tensors, "trained/"))
    for name, parameter in tuned.trained():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := tensors.get(f"optimizer/{key}/{name}")) is not None:
                optimizer.state[parameter][key] = value.to(device, copy=True)
    for name, generator in generators(tuned):
        generator.set_state(tensors[f"generator/{name}"])
    if (numbers := tensors.get(f"random/cpu/{rank}")) is not None:
        torch.set_rng_state(numbers)
    if device.type == "cuda" and (numbers := tensors.get(f"random/cuda/{rank}")) is not None:
        torch.cuda.set_rng_state(numbers, device)
    history = [Epoch(**epoch) for epoch in facts["history"]]
    curve = [(step, loss) for step, loss in facts["curve"]]
    kept = {name: tensor.to(device, copy=True) for name, tensor in _below(tensors, "kept/").items()}
    selection = Selection(tensors.get("selection/best"))
    return State(
        facts["step"], facts["loss"], facts["seconds"], history, curve, kept, facts["kept_epoch"], selection,
        facts.get("micro_tokens", 0),
    )  # fmt: skip


def fits(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], tuned: Tuned) -> bool:
    """Whether a state is of this format, and of what is trained here."""
    here = {name: parameter.shape for name, parameter in tuned.trained()}
    there = {name: tensor.shape for name, tensor in _below(tensors, "trained/").items()}
    return facts.get("format") == FORMAT and here == there


def generators(tuned: Tuned) -> Iterator[tuple[str, torch.Generator]]:
    """The generators that modules hold themselves, by the module's name."""
    return ((name, module.generator) for name, module in tuned.named_modules() if isinstance(module, Dropout))


Random = tuple[list[Tensor], dict[str, Tensor]]


def random_states(tuned: Tuned) -> Random:
    """Where all random numbers of a training stand: the modules' own, and torch's global ones."""
    return [generator.get_state() for _, generator in generators(tuned)], _random(tuned.base.device)


def set_random_states(tuned: Tuned, states: Random) -> None:
    """Let them draw again what they drew since."""
    for (_, generator), state in zip(generators(tuned), states[0], strict=True):
        generator.set_state(state)
    torch.set_rng_state(states[1]["cpu"])
    if "cuda" in states[1]:
        torch.cuda.set_rng_state(states[1]["cuda"], tuned.base.device)


def machine(tuned: Tuned) -> dict[str, Any]:
    """What decides the last bits of a result beside the training itself."""
    workers, _ = world()
    return {
        "workers": workers,
        "device": tuned.base.device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),  # the widest vectors that kernels use here
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _random(device: torch.device) -> dict[str, Tensor]:
    """The state of this worker's global random numbers, by the kind of device that draws them."""
    numbers = {"cpu": torch.get_rng_state()}
    return numbers | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
