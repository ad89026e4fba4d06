"""The frozen base's view of sampled texts: a worker runs it over a few rows of token shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipelines.training.compute import Compute
from pipelines.training.job import EmbedJob
from pipelines.training.launch import News, launch

JOB = "drift"


def embedded(
    base: Path,
    parts: Sequence[tuple[Path, NDArray[np.int64]]],
    compute: Compute,
    cache: Path,
    on_news: News,
) -> NDArray[np.float32]:
    """Mean-pooled last hidden states [N, d] of rows of several shards, in the order of `parts`.

    Args:
        base: the folder of the frozen base.
        parts: folders of token shards with the numbers of their rows.
        compute: where to run.
        cache: beside it the worker writes.
        on_news: called with each line of its progress.
    """
    found: list[NDArray[np.float32]] = []
    job = EmbedJob(name=JOB, parts=tuple((folder, tuple(rows.tolist())) for folder, rows in parts))
    launch(
        base,
        [job],
        compute.model_copy(update={"workers": 1}),
        on_news,
        lambda _, folder: found.append(load_file(folder / "states.safetensors")["states"]),
        cache.parent / "work",
    )
    return found[0]
