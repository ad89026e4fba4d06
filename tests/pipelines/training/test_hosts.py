"""Several machines, each a network namespace of its own on this one: they train as one does, and survive losing one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipelines.store.trees import load_tree
from pipelines.training.compute import Compute
from pipelines.training.job import JobFile, TrainJob
from pipelines.training.launch import launch
from tests.pipelines.training.test_launch import job

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
LEADER, HELPER = "promptmint-a", "promptmint-b"
ADDRESS, PORT, WIRE = "10.77.0.1", 29477, "wire"
LEAD = """
import shutil, sys
from pathlib import Path
from pipelines.training.job import JobFile
from pipelines.training.launch import launch
asked = JobFile.model_validate_json(Path(sys.argv[1]).read_bytes())
launch(asked.base, asked.jobs, asked.compute, lambda news: print(news, flush=True),
       lambda name, folder: shutil.copytree(folder, Path(sys.argv[2]) / name), Path(sys.argv[2]) / "scratch")
"""


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, text=True)


def unwired() -> None:
    for machine in (LEADER, HELPER):
        ip("netns", "del", machine, check=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[None]:
    """Two network namespaces with a wire between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("two machines need iproute2 and the right to make network namespaces (root)")
    unwired()
    try:
        for machine in (LEADER, HELPER):
            ip("netns", "add", machine)
            ip("-n", machine, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as refused:
        unwired()
        pytest.skip(f"two machines need the right to make network namespaces: {refused.stderr.strip()}")
    ip("link", "add", WIRE, "netns", LEADER, "type", "veth", "peer", "name", WIRE, "netns", HELPER)
    for machine, address in ((LEADER, ADDRESS), (HELPER, "10.77.0.2")):
        ip("-n", machine, "addr", "add", f"{address}/24", "dev", WIRE)
        ip("-n", machine, "link", "set", WIRE, "up")
    yield
    unwired()


@pytest.fixture
def on(machines: None, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program on a machine; what still runs in the end is ended."""
    running: list[subprocess.Popen[str]] = []

    def start(
        machine: str, *words: str, hidden: Path | None = None, store: Path | None = None
    ) -> subprocess.Popen[str]:
        python = [sys.executable, *words]
        own = {"PROMPTMINT_STORE": f"file://{store}"} if store else {}
        if hidden is not None:  # a folder that this machine does not have
            python = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh", *python]
        log = (tmp_path / f"{machine}.log").open("w")
        running.append(
            subprocess.Popen(["ip", "netns", "exec", machine, *python], stdout=log, stderr=log, text=True,
                             start_new_session=True, env={**os.environ, **own})
        )  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def profile(**changed: Any) -> Compute:
    fixed: dict[str, Any] = {
        "device": "cpu", "threads": 1, "hosts": 2, "rendezvous": f"{ADDRESS}:{PORT}", "interface": WIRE,
        "silence_s": 150, "checkpoint_s": 0.2,
    }  # fmt: skip
    return Compute(**fixed | changed)


def asked(place: Any, compute: Compute, folder: Path, *jobs: TrainJob) -> Path:
    path = folder / "asked.json"
    path.write_text(JobFile(base=place.base_folder, compute=compute, jobs=jobs).model_dump_json())
    return path


def joining(compute: Compute, folder: Path, *words: str) -> list[str]:
    path = folder / "profile.toml"
    kept = {key: value for key, value in compute.model_dump().items() if value is not None}
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in kept.items()))
    return ["-m", "promptmint.cli", "join", "--compute", str(path), *words]


def tuned_alone(place: Any, one_worker: Compute, folder: Path, *jobs: TrainJob) -> None:
    launch(place.base_folder, jobs, one_worker, lambda news: None,
           lambda name, made: shutil.copytree(made, folder / name), folder / "scratch")  # fmt: skip


def apart(one: Path, other: Path) -> float:
    """The largest difference between two prompts."""
    first, second = (load_file(folder / "prompt.safetensors") for folder in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def words_of(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in folder.glob("*.log"))


def test_two_machines_tune_what_one_does(place: Any, one_worker: Compute, on: Any, tmp_path: Path) -> None:
    tuning = job(place, "prompt")
    helper = on(HELPER, *joining(profile(), tmp_path, "--once"))
    leader = on(LEADER, "-c", LEAD, str(asked(place, profile(), tmp_path, tuning)), str(tmp_path / "two"))
    assert leader.wait(200) == 0 and helper.wait(60) == 0, words_of(tmp_path)
    tuned_alone(place, one_worker, tmp_path / "one", tuning)
    assert apart(tmp_path / "one" / "prompt", tmp_path / "two" / "prompt") < 1e-4
    assert workers_at_the_end(tmp_path / "two") == 2


@pytest.mark.parametrize("lost", ["killed", "cut off"])
def test_a_machine_that_is_lost_is_done_without(
    lost: str, place: Any, one_worker: Compute, on: Any, tmp_path: Path
) -> None:
    tuning = job(place, "prompt", epochs=150).model_copy(update={"checkpoints": tmp_path / "checkpoints"})
    compute = profile(least_hosts=1, restarts=2, silence_s=60)
    helper = on(HELPER, *joining(compute, tmp_path))
    waiting = time.monotonic() + 120
    while "Waiting" not in (tmp_path / f"{HELPER}.log").read_text() and time.monotonic() < waiting:
        time.sleep(0.2)
    leader = on(LEADER, "-c", LEAD, str(asked(place, compute, tmp_path, tuning)), str(tmp_path / "two"))
    while not any((tmp_path / "checkpoints").glob("*")) and leader.poll() is None:
        time.sleep(0.05)
    if lost == "killed":
        os.killpg(helper.pid, signal.SIGKILL)
    else:
        ip("-n", HELPER, "link", "set", WIRE, "down")
    try:
        assert leader.wait(280) == 0, words_of(tmp_path)
    finally:
        ip("-n", HELPER, "link", "set", WIRE, "up")
    assert "resumed at step" in (tmp_path / f"{LEADER}.log").read_text()
    assert workers_at_the_end(tmp_path / "two") == 1
    tuned_alone(place, one_worker, tmp_path / "one", tuning.model_copy(update={"checkpoints": None}))
    assert apart(tmp_path / "one" / "prompt", tmp_path / "two" / "prompt") < 1e-2


def test_a_machine_without_the_base_fetches_it_by_its_digest(place: Any, on: Any, tmp_path: Path) -> None:
    base = load_tree(place.store, place.base.digest, place.cache)
    asking = JobFile(base=base, compute=profile(), jobs=(job(place, "prompt"),))
    (tmp_path / "asked.json").write_text(asking.model_dump_json())
    helper = on(HELPER, *joining(profile(), tmp_path, "--once"), hidden=place.cache, store=place.store.folder)
    leader = on(LEADER, "-c", LEAD, str(tmp_path / "asked.json"), str(tmp_path / "two"))
    assert leader.wait(200) == 0 and helper.wait(60) == 0, words_of(tmp_path)
    fetched = {path.name for path in (tmp_path / "home" / "cache").iterdir()}
    assert {base.name, *(folder.name for folder in (asking.jobs[0].train, asking.jobs[0].validation))} <= fetched


def test_a_machine_that_never_comes_is_named(place: Any, on: Any, tmp_path: Path) -> None:
    waiting = profile(silence_s=5)
    leader = on(LEADER, "-c", LEAD, str(asked(place, waiting, tmp_path, job(place, "prompt"))), str(tmp_path / "two"))
    assert leader.wait(200) != 0
    assert f"Not all 2 machines came to {ADDRESS}:{PORT} within silence_s = 5" in words_of(tmp_path)


def workers_at_the_end(folder: Path) -> int:
    machine: dict[str, Any] = json.loads((folder / "prompt" / "result.json").read_bytes())["machine"]
    return int(machine["workers"])
