"""A compute profile: where a recipe runs. It changes how long things take, and what comes out by rounding only."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import RecipeError


class Compute(BaseModel):
    """Workers on this machine and what each may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("default", pattern="^[a-zA-Z0-9-]+$")  # of the machine; profiles of one name share its `jobs`
    workers: int = Field(1, ge=1)  # processes that share every batch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0)  # per worker; 0: the machine's cores, shared out
    jobs: int = Field(1, ge=1)  # runs, of whatever recipes, that work at once
    timeout_s: int = Field(6 * 3600, ge=1)  # of one launch
    run_timeout_s: int = Field(24 * 3600, ge=1)  # of a whole run, its waiting left out
    checkpoint_s: float = Field(5.0, gt=0)  # between two checkpoints of a training; more where writing takes long
    activations_bytes: int = Field(4 * 2**30, ge=0)  # on the disk, for what is read once of all texts; 0: none
    micro_tokens: int = Field(0, ge=0)  # positions a worker trains on at a time, batches cut to fit; 0: a batch at once


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
