"""Start workers through torch's own launcher, listen to what they write, and take what they finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import pipelines.errors
from pipelines.errors import PromptmintError, TrainingError
from pipelines.training.compute import Compute
from pipelines.training.job import LAUNCHER, Job, JobFile

POLL_S = 0.2
News = Callable[[dict[str, Any]], None]
Done = Callable[[str, Path], None]


def launch(base: Path, jobs: Sequence[Job], compute: Compute, on_news: News, on_done: Done, scratch: Path) -> None:
    """Run every job on one loaded base; each finished one is handed over at once: a later failure loses nothing.

    Args:
        base: the folder of the frozen base.
        jobs: what to do, in this order.
        compute: how many workers, on what.
        on_news: called with each line of progress.
        on_done: called with a job's name and its finished folder, which is deleted afterwards.
        scratch: where the workers write.

    Raises:
        TrainingError: a worker failed or took too long; the message ends with what it printed last.
        PromptmintError: what a worker raised on purpose.
    """
    with _work_folder(scratch) as work:
        job_path, out = work / "job.json", work / "out"
        out.mkdir()
        job_path.write_text(JobFile(base=base, compute=compute, jobs=tuple(jobs)).model_dump_json())
        with (work / "worker.log").open("wb") as log:
            workers = subprocess.Popen(_command(job_path, out, compute), stdout=log, stderr=log, env=_environment())
        try:
            _follow(workers, out, [job.name for job in jobs], compute.timeout_s, on_news, on_done)
        finally:
            _end(workers)
        if workers.returncode != 0:
            raise _failure(out, work / "worker.log", workers.returncode)


def remove_left(scratch: Path) -> None:
    """Remove the folders of launchers that were killed: nobody holds their locks."""
    for left in scratch.glob("job-*"):
        with suppress(Timeout, OSError), FileLock(left / LAUNCHER, timeout=0):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _work_folder(scratch: Path) -> Iterator[Path]:
    """A folder for one launch, its lock held, removed in the end.

    It gets the name that `remove_left` looks for when its lock is held. The lock is let go even where this process is
    killed: then the workers end.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    remove_left(scratch)
    building = Path(tempfile.mkdtemp(prefix=".job-", dir=scratch))
    with FileLock(building / LAUNCHER):
        work = building.rename(scratch / building.name.removeprefix("."))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _command(job_path: Path, out: Path, compute: Compute) -> list[str]:
    """torchrun on this machine; its rendezvous is a file, so that nothing listens on the network."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={compute.workers}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={out.parent / 'rendezvous'}", "--rdzv-conf=store_type=file"),
        *("--max-restarts=0", "-m", "pipelines.training.worker", str(job_path), str(out)),
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Ours, with the place of this code; the workers of one machine talk over loopback, their launcher not at all."""
    root = str(Path(pipelines.errors.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {
        **os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo", "TOKENIZERS_PARALLELISM": "false",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # the launcher's own store would listen on every address
    }  # fmt: skip


def _follow(
    workers: subprocess.Popen[bytes], out: Path, waiting: list[str], timeout_s: int, on_news: News, on_done: Done
) -> None:
    """Pass on progress and finished folders until the workers end."""
    deadline = time.monotonic() + timeout_s
    read = 0
    while True:
        ended = workers.poll() is not None  # asked first: what was written before the end is still read below
        read = _pass_on_news(out / "progress.jsonl", read, on_news)
        while waiting and (out / waiting[0]).is_dir():  # jobs end in their order
            on_done(waiting[0], out / waiting[0])
            waiting.pop(0)
        if ended:
            return
        if time.monotonic() > deadline:
            raise TrainingError(
                f"The workers took longer than timeout_s = {timeout_s}. Raise it in the compute profile."
            )
        time.sleep(POLL_S)


def _pass_on_news(path: Path, read: int, on_news: News) -> int:
    """How far the file has been read after its whole new lines were passed on."""
    if not path.exists():
        return read
    with path.open("rb") as file:
        file.seek(read)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.splitlines():
        on_news(json.loads(line))
    return read + len(whole)


def _end(workers: subprocess.Popen[bytes]) -> None:
    """Let running workers go, gently first: torchrun passes the signal on to each."""
    if workers.poll() is not None:
        return
    workers.send_signal(signal.SIGTERM)
    try:
        workers.wait(timeout=15)
    except subprocess.TimeoutExpired:
        workers.kill()
        workers.wait()


def _failure(out: Path, log: Path, returncode: int) -> PromptmintError:
    """What went wrong, as the worker named it, or the end of what it printed."""
    if (out / "failure.json").exists():
        failure = json.loads((out / "failure.json").read_text())
        error: PromptmintError = getattr(pipelines.errors, failure["error"])(failure["message"])
        return error
    lines = log.read_text(errors="replace").splitlines()[-40:]
    return TrainingError(f"The workers ended with code {returncode}. Their last words:\n" + "\n".join(lines))
