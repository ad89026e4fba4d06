"""What the workers of one training tell each other; one worker alone tells itself."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """How many workers there are, and which of them this is."""
    return (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)


def agreed(loss: Tensor, *wishes: bool) -> tuple[float, list[bool]]:
    """The mean of a scalar loss, and of each wish whether any worker has it: the same answers on every worker."""
    workers, _ = world()
    if workers == 1:
        return float(loss), list(wishes)
    said = torch.stack([loss, *(loss.new_tensor(float(wish)) for wish in wishes)])
    dist.all_reduce(said)
    mean, *wished = (said / workers).tolist()
    return mean, [share > 0 for share in wished]


def gathered(value: Tensor, device: torch.device) -> list[Tensor]:
    """A small tensor of the CPU from every worker, in their order."""
    workers, _ = world()
    if workers == 1:
        return [value]
    mine = value.to(device)  # NCCL speaks of what lies on GPUs only
    everyones = [torch.empty_like(mine) for _ in range(workers)]
    dist.all_gather(everyones, mine)
    return [each.cpu() for each in everyones]


def told(data: bytes, device: torch.device) -> bytes:
    """The first worker's bytes, on every worker; the others give none."""
    if world()[0] == 1:
        return data
    size = torch.tensor([len(data)], device=device)
    dist.broadcast(size, 0)
    if not size:
        return b""
    content = torch.frombuffer(bytearray(data or bytes(int(size))), dtype=torch.uint8).to(device)
    dist.broadcast(content, 0)
    return content.cpu().numpy().tobytes()
