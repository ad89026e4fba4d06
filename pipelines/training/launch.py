"""Start workers through torch's own launcher, listen to what they write, and take what they finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

import pipelines.errors
from pipelines.costs import hold_gpus
from pipelines.errors import PromptmintError, RecipeError, TrainingError, listed
from pipelines.training.compute import Compute
from pipelines.training.job import GPUS, LAUNCHER, Job, JobFile, ScoreJob, TrainJob

POLL_S = 0.2
ANSWER_S = 2  # a rendezvous that has not answered by then is asked again
LAST_CALL_S = 30  # at most: when enough machines are there, the others have a quarter of `silence_s` to come as well
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
    compute = _needed(compute, jobs)
    with _work_folder(scratch) as work:
        start = time.perf_counter()
        workers = _start(work, JobFile(base=base, compute=compute, jobs=tuple(jobs)))
        try:
            _follow(workers, work / "out", [job.name for job in jobs], compute.timeout_s, on_news, on_done)
        finally:
            _end(workers)
            if (gpus := work / "out" / GPUS).exists():
                hold_gpus(int(gpus.read_text()), time.perf_counter() - start)
        if workers.returncode != 0:
            raise _failure(work, compute, workers.returncode)


def join(compute: Compute, scratch: Path) -> None:
    """Take part, as one of several machines, in the next launch of the machine that leads; its jobs end there.

    Raises:
        TrainingError: no such launch was met within `silence_s`, or it was broken off.
    """
    _wait_for_launch(compute)
    with _work_folder(scratch) as work:
        workers = _start(work, JobFile(compute=compute))
        try:
            workers.wait()
        finally:
            _end(workers)
        if workers.returncode != 0:
            raise _failure(work, compute, workers.returncode)


def _wait_for_launch(compute: Compute) -> None:
    """Until the rendezvous answers: torch's own client asks ever more rarely, and comes too late in the end."""
    host, port = str(compute.rendezvous).rsplit(":", 1)
    deadline = time.monotonic() + compute.silence_s
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=ANSWER_S):
            return
        time.sleep(POLL_S)
    raise TrainingError(
        f"No launch at {compute.rendezvous} within silence_s = {compute.silence_s}. It begins with a run on the "
        "machine of that address, whose compute profile names as many hosts."
    )


def _needed(compute: Compute, jobs: Sequence[Job]) -> Compute:
    """The profile, of one worker where others would only look on; a whole base that fits no device is on the CPU."""
    shared = (TrainJob, ScoreJob) if compute.sharded else (TrainJob,)
    if any(isinstance(job, shared) for job in jobs):
        return compute
    device = "cpu" if compute.sharded else compute.device
    return compute.model_copy(update={"workers": 1, "hosts": 1, "sharded": False, "device": device})


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


def _start(work: Path, jobs: JobFile) -> subprocess.Popen[bytes]:
    """torchrun with this machine's workers."""
    job_path, out = work / "job.json", work / "out"
    out.mkdir()
    job_path.write_text(jobs.model_dump_json())
    with (work / "worker.log").open("wb") as log:
        return subprocess.Popen(_command(job_path, out, jobs), stdout=log, stderr=log, env=_environment(jobs.compute))


def _command(job_path: Path, out: Path, jobs: JobFile) -> list[str]:
    """torchrun; on one machine its rendezvous is a file, so that nothing listens on the network."""
    compute = jobs.compute
    hosts = f"{compute.least_hosts or compute.hosts}:{compute.hosts}"
    if compute.hosts == 1:
        meeting = [f"--rdzv-endpoint={job_path.parent / 'rendezvous'}", "--rdzv-conf=store_type=file"]
    else:
        silence = compute.silence_s
        last_call = min(LAST_CALL_S, silence // 4)
        waiting = f"join_timeout={silence},read_timeout={silence},last_call_timeout={last_call}"
        leads = int(jobs.base is not None)
        meeting = [
            *(f"--rdzv-endpoint={compute.rendezvous}", f"--rdzv-id=promptmint-{compute.name}"),
            *(f"--rdzv-conf=is_host={leads},{waiting}", f"--local-addr={_address(compute.interface)}"),
        ]
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={hosts}"),
        *(f"--nproc-per-node={compute.workers}", "--rdzv-backend=c10d", *meeting, f"--max-restarts={compute.restarts}"),
        *("-m", "pipelines.training.worker", str(job_path), str(out)),
    ]  # fmt: skip


def _address(interface: str | None) -> str:
    """This machine's IPv4 address on a network interface."""
    found = psutil.net_if_addrs()
    addresses: list[str] = [each.address for each in found.get(str(interface), []) if each.family == socket.AF_INET]
    if not addresses:
        raise RecipeError(
            f"The compute profile's interface = {interface!r} has no IPv4 address on this machine. There are: "
            f"{listed(found)}."
        )
    return addresses[0]


def _environment(compute: Compute) -> dict[str, str]:
    """Ours, with the place of this code and the network that workers talk over: on one machine the loopback alone."""
    root = str(Path(pipelines.errors.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    shared = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    if compute.interface and compute.hosts > 1:
        return {**shared, "GLOO_SOCKET_IFNAME": compute.interface, "NCCL_SOCKET_IFNAME": compute.interface}
    # The launcher's own store would listen on every address.
    return {**shared, "GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


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


def _failure(work: Path, compute: Compute, returncode: int) -> PromptmintError:
    """What went wrong, as the worker named it, or the end of what it printed."""
    if (named := work / "out" / "failure.json").exists():
        failure = json.loads(named.read_text())
        error: PromptmintError = getattr(pipelines.errors, failure["error"])(failure["message"])
        return error
    log = (work / "worker.log").read_text(errors="replace")
    if "RendezvousTimeoutError" in log or "RendezvousConnectionError" in log:
        return TrainingError(
            f"Not all {compute.least_hosts or compute.hosts} machines came to {compute.rendezvous} within silence_s = "
            f"{compute.silence_s}. Run `promptmint join` on the others, and see that they reach this address."
        )
    return TrainingError(
        f"The workers ended with code {returncode}. Their last words:\n" + "\n".join(log.splitlines()[-40:])
    )
