"""A compute profile: where a recipe runs. It changes how long things take, and what comes out by rounding only."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import RecipeError


class Compute(BaseModel):
    """Workers on one machine or on several, and what each may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("default", pattern="^[a-zA-Z0-9-]+$")  # of the machine; profiles of one name share its `jobs`
    workers: int = Field(1, ge=1)  # processes that share every batch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0)  # per worker; 0: the machine's cores, shared out
    jobs: int = Field(1, ge=1)  # runs, of whatever recipes, that work at once
    timeout_s: int = Field(6 * 3600, ge=1)  # of one launch
    run_timeout_s: int = Field(24 * 3600, ge=1)  # of a whole run, its waiting left out
    checkpoint_s: float = Field(5.0, gt=0)  # between two checkpoints of a training; more where writing takes long
    core_watts: float = Field(12.0, ge=0)  # of a busy processor core; for the estimate of what a run costs
    gpu_watts: float = Field(300.0, ge=0)  # of a GPU that a worker holds
    activations_bytes: int = Field(4 * 2**30, ge=0)  # on the disk, for what is read once of all texts; 0: none
    micro_tokens: int = Field(0, ge=0)  # positions a worker trains on at a time, batches cut to fit; 0: a batch at once
    gradient_checkpointing: bool = False  # layers run again for their gradients: less memory, more time
    sharded: bool = False  # the frozen base cut over all workers (FSDP2), for one that does not fit a device
    hosts: int = Field(1, ge=1)  # machines that share every batch; on the others runs `promptmint join`
    least_hosts: int | None = Field(None, ge=1)  # with so many of them it begins, and goes on; None: all
    rendezvous: str | None = Field(None, pattern=r"^[^\s:/]+:[0-9]+$")  # HOST:PORT of the machine that launches
    interface: str | None = Field(None, pattern=r"^\S+$")  # of the network that the machines have in common
    silence_s: int = Field(1800, ge=1)  # that a worker or a machine is waited for before it counts as lost
    restarts: int = Field(0, ge=0, le=10)  # how often the workers go on from the last checkpoint after one was lost

    @model_validator(mode="after")
    def _hosts_can_meet(self) -> Compute:
        if self.hosts > 1 and not (self.rendezvous and self.interface):
            raise ValueError(
                f"hosts = {self.hosts} need `rendezvous`, HOST:PORT of the machine that launches, and `interface`, "
                f"the network interface they have in common, as in 'eth1'"
            )
        if self.least_hosts is not None and self.least_hosts > self.hosts:
            raise ValueError(f"least_hosts = {self.least_hosts} is more than hosts = {self.hosts}")
        return self


def load_compute(path: str | Path | None = None) -> Compute:
    """The profile in a TOML file; without one, that of PROMPTMINT_COMPUTE, or one worker on whatever is there.

    Raises:
        RecipeError: the file cannot be read, or has keys that are not known.
    """
    path = path or os.environ.get("PROMPTMINT_COMPUTE")
    if not path:
        return Compute()
    try:
        return Compute.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        known = ", ".join(Compute.model_fields)
        raise RecipeError(f"Cannot use the compute profile {str(path)!r}: {error}. Known keys: {known}.") from error
