"""A job file: what a worker is asked for, in JSON; what it answers with is a folder per job.

JOB.json   base folder, jobs, compute
OUT/progress.jsonl          a line whenever there is news
OUT/gpus                    how many GPUs the workers hold, where they hold any
OUT/NAME/                   one finished job, published whole:
    result.json             figures
    weights.safetensors     a training job: what was trained, by parameter name
    prompt.* proof.*        a training job of a soft prompt: its artifact
    logits.safetensors      a scoring job: logits [n, C] in the rows' order
    texts.json              a scoring job of texts: one for each input, in the order in which inputs come first
    states.safetensors      an embedding job: states [n, d] in the rows' order

A latency job has its figures in result.json alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.recipe import Adapters, Full, Head, HeadOnly, Lora, Optimisation, Prompt, Template, ZeroShot
from pipelines.training.compute import Compute

METHODS: dict[str, type[Prompt | Lora | Adapters | Full | HeadOnly | ZeroShot]] = {
    "prompt": Prompt,
    "lora": Lora,
    "adapters": Adapters,
    "full": Full,
    "head_only": HeadOnly,
    "zero_shot": ZeroShot,
}
Kind = Literal["prompt", "lora", "adapters", "full", "head_only", "zero_shot"]

GPUS = "gpus"  # in OUT
LAUNCHER = "launcher.lock"  # beside the job's file: held as long as the launcher lives


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainJob(_Closed):
    """Tune the base by one method."""

    do: Literal["train"] = "train"
    name: str
    kind: Kind
    settings: dict[str, Any]  # of the method: the recipe's table, defaults written out
    shared: Optimisation
    head: Head
    labels: tuple[str, ...]
    seed: int
    train: Path  # shards
    validation: Path
    checkpoints: Path | None = None  # a folder that outlives the launch; None: nothing to go on with
    start: Path | None = None  # a soft prompt: the folder of the one it starts from, `card["start"]`; None: `init`
    activations: Path | None = None  # a folder for what is read once; None: nothing is kept
    may_diverge: bool = False  # one of many that are tried: its divergence is a result, and the others go on
    card: dict[str, Any] = {}  # a soft prompt: what prompt.json says beyond what the worker knows

    @property
    def marked(self) -> bool:
        """Whether the template says where the soft prompt stands."""
        return "template" in self.card and Template(**self.card["template"]).marked


class ScoreJob(_Closed):
    """Give the logits of one tuned base on some shards, or the texts that it writes."""

    do: Literal["score"] = "score"
    name: str
    kind: Kind
    weights: Path | None  # the folder that training published; None: nothing was trained
    settings: dict[str, Any] = {}
    head: Head
    labels: tuple[str, ...]
    seed: int = 0
    batch_size: int = 32
    rows: Path


class EmbedJob(_Closed):
    """Give the untouched base's mean-pooled last hidden states of some rows of several shards."""

    do: Literal["embed"] = "embed"
    name: str
    seed: int = 0
    batch_size: int = 32
    parts: tuple[tuple[Path, tuple[int, ...]], ...]  # shards, and the numbers of their rows


class LatencyJob(_Closed):
    """Measure what a minted prompt adds to the time of an answer."""

    do: Literal["time"] = "time"
    name: str
    weights: Path  # the folder of its artifact
    tokens: int
    seed: int = 0


Job = TrainJob | ScoreJob | EmbedJob | LatencyJob


class JobFile(_Closed):
    """Several jobs on one base, which a worker loads once."""

    base: Path | None = None  # None: another machine has the jobs
    compute: Compute  # of this machine
    jobs: tuple[Annotated[Job, Field(discriminator="do")], ...] = ()
