"""The worker: jobs from a file, a folder per job. It speaks to no server; helping another machine, it reads the store.

python -m torch.distributed.run --nproc-per-node N -m pipelines.training.worker JOB.json OUT/
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging

from pipelines.digests import canonical_json, digest_bytes
from pipelines.errors import BaseModelError, DivergedError, PromptmintError, RecipeError, TrainingError
from pipelines.inference.base import Base, load_base
from pipelines.prompts.artifact import read_prompt
from pipelines.prompts.initialisation import start_ids
from pipelines.prompts.mint import mint
from pipelines.prompts.verbaliser import word_head
from pipelines.prompts.writer import writing_head
from pipelines.recipe import Head, Prompt
from pipelines.settings import activations_folder, cache_folder, home
from pipelines.store.opening import the_store
from pipelines.store.trees import load_tree
from pipelines.tokens.template import MARKER
from pipelines.training.activations import Room
from pipelines.training.checkpoint import Keeper, stopping
from pipelines.training.collective import told, world
from pipelines.training.compute import Compute
from pipelines.training.frozen import states_of
from pipelines.training.group import device_of, joined
from pipelines.training.job import GPUS, LAUNCHER, METHODS, EmbedJob, Job, JobFile, LatencyJob, ScoreJob, TrainJob
from pipelines.training.loop import logits_of, texts_of, train
from pipelines.training.recompute import recomputing
from pipelines.training.sharding import shard, whole
from pipelines.training.shards import Rows, TextRows, read_inputs, read_rows, read_texts
from pipelines.training.state import machine
from pipelines.training.tuned import Tuned, linear_head, tune

FAILURE = "failure.json"  # in OUT: an error that was raised on purpose, for the launcher to raise again


def main(job_path: Path, out: Path) -> None:
    """Do every job of the file that `out` does not hold yet; a file without any: those of the machine that has them."""
    if (lock := job_path.parent / LAUNCHER).exists():
        threading.Thread(target=_end_with_launcher, args=(lock,), daemon=True).start()
    mine = JobFile.model_validate_json(job_path.read_bytes())
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = device_of(mine.compute)
    with joined(mine.compute, device, job_path.parent, leads=mine.base is not None):
        if device.type == "cuda" and world()[1] == 0:
            (out / GPUS).write_text(str(world()[0]))
        folder, jobs = _asked_for(mine, out, device)
        base = _base(folder, device if not mine.compute.sharded else torch.device("cpu"))
        untouched = _digest_weights(base)
        for number, job in enumerate(jobs):
            torch.manual_seed(job.seed + world()[1])
            if mine.compute.sharded and number:
                base = _base(folder, torch.device("cpu"))  # the one before was cut for its job
            match job:
                case TrainJob():
                    _train(job, base, folder, out, mine.compute, device)
                case ScoreJob():
                    _score(job, base, folder, out, mine.compute, device)
                case EmbedJob():
                    _embed(job, base, out)
                case LatencyJob():
                    _time(job, base, out)
            if _digest_weights(base) != untouched:
                raise TrainingError(f"The frozen base changed during the job {job.name!r}: its result was thrown away.")


def _asked_for(mine: JobFile, out: Path, device: torch.device) -> tuple[Path, list[Job]]:
    """The base's folder and what is still to do, as the first worker knows, on every worker."""
    left = mine.model_copy(update={"jobs": tuple(job for job in mine.jobs if not (out / job.name).is_dir())})
    told_jobs = told(left.model_dump_json().encode() if world()[1] == 0 else b"", device)
    asked = JobFile.model_validate_json(told_jobs)
    assert asked.base is not None
    return _here(asked.base), [_localised(job, leads=mine.base is not None) for job in asked.jobs]


def _localised(job: Job, leads: bool) -> Job:
    """A job with this machine's folders in the place of those of the machine that leads."""
    named = ("train", "validation", "start", "rows", "weights")
    folders = {name: _here(path) for name in named if (path := getattr(job, name, None))}
    if not leads and isinstance(job, TrainJob) and job.activations:
        folders["activations"] = activations_folder(home())
    return job.model_copy(update=folders)


def _here(folder: Path) -> Path:
    """A folder of the cache; on a machine that does not have it, fetched from the store by the digest in its name."""
    return folder if folder.is_dir() else load_tree(the_store(), folder.name, cache_folder())


def _end_with_launcher(lock: Path) -> None:
    """End this process when nobody waits for it any more: a killed launcher lets go of its lock, and says nothing.

    The file is opened once: the next launcher may remove it with its folder at any moment.
    """
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os._exit(1)


def _train(job: TrainJob, base: Base, base_folder: Path, out: Path, compute: Compute, device: torch.device) -> None:
    settings: Any = METHODS[job.kind].model_validate(job.settings)
    head = _head(job.head, job.labels, base, base_folder, job.seed)
    _check_whole(job.head, compute)
    read: Any = read_texts if job.head.generates else read_rows
    rows, validation = (read(folder, marked=job.kind == "prompt") for folder in (job.train, job.validation))
    tuned = tune(base, settings, head, job.seed, _start_ids(job, settings, base_folder, rows), job.marked)
    if job.start:
        tuned.begin(read_prompt(job.start, job.card["start"]))
    if compute.sharded:
        shard(tuned, job.kind, device)
    keeper = Keeper(job.checkpoints, compute.checkpoint_s)
    try:
        with stopping(keeper), recomputing(tuned.base, compute.gradient_checkpointing):
            went = train(
                tuned, settings, job.shared, job.seed, rows, validation, lambda news: _tell(out, job.name, news),
                keeper, compute.micro_tokens, _room(job, compute),
            )  # fmt: skip
    except DivergedError as error:
        if not job.may_diverge:
            raise
        _publish_divergence(out, job.name, error.step)
        return
    with _published(out, job.name) as folder:
        result = {**asdict(went), "trainable_params": tuned.trainable_params(), "machine": machine(tuned)}
        if isinstance(settings, Prompt):
            result["prompt_digest"] = mint(folder, tuned, settings, base_folder, job)
        else:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tuned.trained()}, folder / WEIGHTS)
        (folder / "result.json").write_bytes(canonical_json(result))


def _room(job: TrainJob, compute: Compute) -> Room | None:
    """Where a soft prompt's training keeps what it reads once."""
    if job.activations is None or "base" not in job.card or not compute.activations_bytes:
        return None
    return Room(job.activations, job.card["base"]["digest"], compute.activations_bytes)


def _publish_divergence(out: Path, name: str, step: int) -> None:
    if world()[1] == 0:
        with _published(out, name) as folder:
            (folder / "result.json").write_bytes(canonical_json({"diverged_at": step, "seconds": 0.0}))


def _score(job: ScoreJob, base: Base, base_folder: Path, out: Path, compute: Compute, device: torch.device) -> None:
    if job.kind == "prompt" and job.weights is not None:
        tuned = _from_artifact(base, job.weights)
    else:
        settings = METHODS[job.kind].model_validate(job.settings)
        tuned = tune(base, settings, _head(job.head, job.labels, base, base_folder, job.seed), job.seed)
        tuned.restore(load_file(job.weights / WEIGHTS) if job.weights is not None else {})
    _check_whole(job.head, compute)
    if compute.sharded:
        shard(tuned, job.kind, device)
    marked = job.kind == "prompt"
    answers: list[str] | Tensor
    if job.head.generates:
        tokenizer, asked = AutoTokenizer.from_pretrained(base_folder), read_texts(job.rows, marked)
        answers = texts_of(tuned, tokenizer, asked, job.head.max_new_tokens or 0, job.batch_size)
    else:
        answers = logits_of(tuned, read_rows(job.rows, marked=marked), job.batch_size)
    with _published(out, job.name) as folder:
        if isinstance(answers, list):
            (folder / "texts.json").write_bytes(canonical_json(answers))
        else:
            save_file({"logits": answers}, folder / "logits.safetensors")
        (folder / "result.json").write_bytes(canonical_json({"trainable_params": tuned.trainable_params()}))
    _tell(out, job.name, {"scored": len(answers)})


def _embed(job: EmbedJob, base: Base, out: Path) -> None:
    parts = [read_inputs(folder, rows) for folder, rows in job.parts]
    states = torch.cat([states_of(base, part, job.batch_size) for part in parts])
    with _published(out, job.name) as folder:
        save_file({"states": states}, folder / "states.safetensors")
    _tell(out, job.name, {"scored": len(states)})


def _time(job: LatencyJob, base: Base, out: Path) -> None:
    from pipelines.evaluation.latency import measure

    with _published(out, job.name) as folder:
        (folder / "result.json").write_bytes(canonical_json(measure(base, read_prompt(job.weights), job.tokens)))


WEIGHTS = "weights.safetensors"


def _from_artifact(base: Base, folder: Path) -> Tuned:
    """A prompt as its artifact says, ready to score: the folded tensors, no encoder."""
    from pipelines.prompts.parameterisation import Direct

    prompt = read_prompt(folder)
    return Tuned(base, Direct(prompt.tensors), prompt.head).to(base.device)


def _base(folder: Path, device: torch.device) -> Base:
    """The frozen base; what cannot be steered is refused as a base, not as a failed training."""
    try:
        return load_base(folder, device)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"Cannot use this base: {error}") from error


def _head(head: Head, labels: tuple[str, ...], base: Base, base_folder: Path, seed: int) -> dict[str, Tensor]:
    """The head's tensors at their start."""
    if head.generates:
        return writing_head(base, AutoTokenizer.from_pretrained(base_folder))
    if head.words is None:
        return linear_head(base, len(labels), seed)
    return word_head(base, AutoTokenizer.from_pretrained(base_folder), head.words)


def _check_whole(head: Head, compute: Compute) -> None:
    """Refuse to write with a base that is cut: all that reads it would have to stand inside one forward."""
    if compute.sharded and head.generates:
        raise RecipeError(
            "The compute profile says sharded = true, and head.kind = 'generation' reads the base token by token, "
            "which a base that is cut over the workers cannot do yet. Use a profile whose devices hold the base whole."
        )


def _start_ids(job: TrainJob, settings: Any, base_folder: Path, rows: Rows | TextRows) -> list[int]:
    """The text that a soft prompt starts from as token ids; none where it starts from no text."""
    if not isinstance(settings, Prompt):
        return []
    if settings.init == "inputs":
        return [token for text in rows.tokens for token in text if token != MARKER]
    return start_ids(AutoTokenizer.from_pretrained(base_folder), settings, job.head.words or job.labels)


def _digest_weights(base: Base) -> str:
    """One digest over every weight of the frozen base, to show that training left it alone."""
    weights = sorted(base.whole.state_dict().items())
    return digest_bytes(b"".join(bytes.fromhex(_digest_tensor(whole(tensor))) for _, tensor in weights))


def _digest_tensor(tensor: Tensor) -> str:
    return digest_bytes(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _tell(out: Path, name: str, news: dict[str, Any]) -> None:
    """Append a line for the launcher to read, whole or, where the disk is full, not at all."""
    if world()[1] != 0:
        return
    line, written = canonical_json({"job": name, **news}) + b"\n", 0
    with suppress(OSError), (out / "progress.jsonl").open("ab", buffering=0) as file:
        before = file.tell()
        try:
            written = file.write(line)
        finally:
            if written < len(line):
                file.truncate(before)


@contextmanager
def _published(out: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which takes its name in `out` only when it is complete, and only on the first worker."""
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out, ignore_cleanup_errors=True) as building:
        folder = Path(building) / name
        folder.mkdir()
        yield folder
        if world()[1] == 0:
            folder.rename(out / name)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    try:
        main(Path(sys.argv[1]), target)
    except PromptmintError as error:
        (target / FAILURE).write_text(json.dumps({"error": type(error).__name__, "message": str(error)}))
        raise SystemExit(error.exit_code) from error
