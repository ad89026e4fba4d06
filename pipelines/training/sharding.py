"""A frozen base that does not fit one device, cut over the workers by torch's FSDP2; what is trained is whole on each.

Each block of the base is gathered when it runs and let go after it. Every worker must therefore run as often as every
other, and all that reads the base's weights stands inside the forward of `Tuned`, which is the root of it all.
Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from pipelines.errors import RecipeError
from pipelines.training.collective import world
from pipelines.training.tuned import Tuned


def shard(tuned: Tuned, kind: str, device: torch.device) -> Tuned:
    """The same tuned base, its frozen weights cut over the workers and put on their devices.

    `kind` is the job's: how it was tuned.

    Raises:
        RecipeError: full fine-tuning, which has no frozen weights.
    """
    if kind == "full":
        raise RecipeError(
            "The compute profile says sharded = true, and full fine-tuning trains the very weights that would be cut "
            "over the workers. Leave [baselines.full] out of the recipe, or tune it on devices that hold it whole."
        )
    mesh = init_device_mesh(device.type, (world()[0],))
    trained = {parameter for _, parameter in tuned.trained()}
    for parameter in trained:
        parameter.data = parameter.data.to(device)
    for block in dict.fromkeys(layer.block for layer in tuned.base.layers if layer.block is not None):
        fully_shard(block, mesh=mesh, ignored_params=trained & set(block.parameters()))
    fully_shard(tuned, mesh=mesh, ignored_params=trained)
    return tuned


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's weights are cut over the workers."""
    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """A weight as it is without the cut; every worker must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every worker's gradients their mean over the workers."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world()[0]


def most(number: int, device: torch.device) -> int:
    """The largest of the workers' numbers."""
    numbers = torch.tensor([number], device=device)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)
