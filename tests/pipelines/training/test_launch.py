"""Real workers, started by torch's launcher: what they finish is kept, what they do wrong is told, nothing is heard.

Each launch takes seconds, so what one or two workers make is made once for the whole file.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from transformers import AutoTokenizer, WhisperConfig

from pipelines.digests import digest_json
from pipelines.errors import BaseModelError, RecipeError, TrainingError
from pipelines.inference.base import load_base
from pipelines.inference.predictor import load_predictor
from pipelines.prompts.artifact import read_prompt
from pipelines.recipe import Full, Head, HeadOnly, Lora, Optimisation, Prompt
from pipelines.training import worker
from pipelines.training.compute import Compute
from pipelines.training.job import LAUNCHER, JobFile, TrainJob
from pipelines.training.launch import _work_folder, join, launch
from pipelines.training.loop import train
from pipelines.training.shards import read_rows
from pipelines.training.tuned import linear_head, tune

LABELS = ("account", "billing")
SETTINGS: dict[str, Any] = {
    "prompt": Prompt(method="p-tuning-v2", tokens=3, rate=0.02, dropout=0.1),
    "encoded": Prompt(method="p-tuning", tokens=3, rate=0.002, hidden=8, init="labels"),
    "gated": Prompt(method="lopa", tokens=3, rate=0.01, hidden=8, rank=2, init="inputs"),
    "full": Full(rate=1e-3, dropout=False),
    "head_only": HeadOnly(rate=0.1),
}
SHARED = Optimisation(epochs=2, batch_size=16)


def job(place: Any, kind: str, settings: Any = None, name: str | None = None, **shared: Any) -> TrainJob:
    settings = settings or SETTINGS[kind]
    name, kind = name or kind, "prompt" if isinstance(settings, Prompt) else kind
    card = {
        "base": place.base.card(),
        "data": {},
        "recipe": {"name": "tickets", "digest": digest_json(0)},
        "template": {"text": "{text}", "max_tokens": 32},
    }
    return TrainJob(
        name=name, kind=kind, settings=settings.model_dump(mode="json"), labels=LABELS, seed=3,
        shared=SHARED.model_copy(update=shared), head=Head(), train=place.folders["train"],
        validation=place.folders["validation"], card=card if kind == "prompt" else {},
    )  # fmt: skip


def family(parent: int) -> set[int]:
    """The processes below `parent`, at this moment."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, seen = set(), {parent}
    while seen:
        seen = {child for child, above in parents.items() if above in seen}
        found |= seen
    return found


def listening(processes: set[int]) -> set[str]:
    """The addresses that some of these processes listen on."""
    inodes = set()
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            try:
                inodes.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                words = [struct.pack("=I", int(local[at : at + 8], 16)) for at in range(0, len(local) - 5, 8)]
                addresses.add(socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words)))
    return addresses


@dataclass
class Launched:
    """What a launch left behind and said."""

    out: Path
    news: list[dict[str, Any]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    listened: set[str] = field(default_factory=set)

    def keep(self, name: str, folder: Path) -> None:
        shutil.copytree(folder, self.out / name)
        self.done.append(name)

    def start(
        self, place: Any, jobs: list[Any], compute: Compute, on_news: Callable[[Any], None] | None = None
    ) -> None:
        launch(place.base_folder, jobs, compute, on_news or self.news.append, self.keep, self.out / "scratch")


@pytest.fixture(scope="module")
def one(place: Any, one_worker: Compute, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Each of SETTINGS tuned by one worker."""
    launched = Launched(tmp_path_factory.mktemp("one"))
    launched.start(place, [job(place, kind) for kind in SETTINGS], one_worker)
    return launched


@pytest.fixture(scope="module")
def two(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """The same by two workers, watched for open ports."""
    launched = Launched(tmp_path_factory.mktemp("two"))
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            launched.listened |= listening(family(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        compute = Compute(workers=2, device="cpu", threads=1)
        launched.start(place, [job(place, kind) for kind in SETTINGS], compute)
    finally:
        over.set()
        watcher.join()
    return launched


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "prompt.safetensors" if (folder / "prompt.safetensors").exists() else "weights.safetensors"
    return load_file(folder / name)


def test_jobs_are_handed_over_in_order_and_news_come_on_the_way(one: Launched) -> None:
    assert one.done == list(SETTINGS)
    ends = [(line["job"], line["epoch"]) for line in one.news if "validation_accuracy" in line]
    assert ends == [(kind, epoch) for kind in SETTINGS for epoch in (1, 2)]
    assert list((one.out / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_worker_makes_what_the_loop_makes(one: Launched, place: Any, kind: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        base = load_base(place.base_folder)
        torch.manual_seed(3)
        ids = AutoTokenizer.from_pretrained(place.base_folder)("account billing", add_special_tokens=False)["input_ids"]
        rows = {split: read_rows(place.folders[split]) for split in ("train", "validation")}
        if kind == "gated":
            ids = [token for text in rows["train"].tokens for token in text]
        tuned = tune(base, SETTINGS[kind], linear_head(base, 2, 3), 3, ids)
        train(tuned, SETTINGS[kind], SHARED, 3, rows["train"], rows["validation"], lambda news: None)
    finally:
        torch.set_num_threads(threads)
    made = {**tuned.prompt(), **tuned.head_tensors()} if tuned.prompt else dict(tuned.trained())
    for name, stored in weights(one.out / kind).items():
        assert torch.allclose(stored, made[name.removeprefix("head.") if tuned.prompt else name], atol=1e-6), name


def test_a_worker_mints_a_prompt_that_loads(one: Launched, place: Any) -> None:
    loaded = load_predictor(one.out / "prompt", place.base_folder)
    assert loaded.prompt.card["base"]["digest"] == place.base.digest
    assert loaded.predict(["my refund again"])[0].label in LABELS


def test_two_workers_tune_what_one_does(one: Launched, two: Launched) -> None:
    """The last batch has one row: one of the two workers has none, and takes part with weight zero."""
    assert len(read_prompt(one.out / "prompt").tensors) == 2
    for kind in SETTINGS:
        alone, shared = weights(one.out / kind), weights(two.out / kind)
        assert alone.keys() == shared.keys()
        for name, tensor in alone.items():
            assert torch.allclose(tensor, shared[name], rtol=0, atol=1e-4), (kind, name)


def test_two_workers_answer_what_one_does(one: Launched, two: Launched, place: Any, tickets: Any) -> None:
    texts = [ticket.text for ticket in tickets(60, 4)]
    answers = [load_predictor(place_.out / "prompt", place.base_folder).predict(texts) for place_ in (one, two)]
    assert [answer.label for answer in answers[0]] == [answer.label for answer in answers[1]]
    losses = [[line["loss"] for line in launched.news if "validation_loss" in line] for launched in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_workers_listen_on_loopback_alone(two: Launched) -> None:
    assert two.listened, "gloo's ranks find each other through sockets: none seen means that nobody looked"
    assert two.listened <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_killed_worker_costs_only_its_own_job(place: Any, one_worker: Compute, tmp_path: Path) -> None:
    launched = Launched(tmp_path)
    endless = SETTINGS["head_only"].model_copy(update={"epochs": 100_000})

    def kill(news: dict[str, Any]) -> None:
        for process in workers() if news["job"] == "endless" else ():
            os.kill(process, signal.SIGKILL)

    jobs = [job(place, "head_only"), job(place, "head_only", endless, "endless"), job(place, "prompt")]
    with pytest.raises(
        TrainingError, match=r"The workers ended with code 1. Their last words:\n(?s:.)*(SIGKILL|Signal 9)"
    ):
        launched.start(place, jobs, one_worker, kill)
    assert launched.done == ["head_only"]
    assert {path.name for path in (tmp_path / "head_only").iterdir()} == {"result.json", "weights.safetensors"}
    assert list((tmp_path / "scratch").iterdir()) == []


def workers() -> list[int]:
    """The workers that run below this process, their launcher not among them."""
    lines = {process: commandline(process) for process in family(os.getpid())}
    return [
        process for process, line in lines.items() if "training.worker" in line and "torch.distributed.run" not in line
    ]


def commandline(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.parametrize("reason", ["interrupted", "late"])
def test_workers_do_not_outlive_their_launch(place: Any, one_worker: Compute, tmp_path: Path, reason: str) -> None:
    """Ctrl-C, which reaches Python as a KeyboardInterrupt wherever it stands, or a launch that takes too long."""
    endless = job(place, "head_only", SETTINGS["head_only"].model_copy(update={"epochs": 100_000}))
    before, during = family(os.getpid()), set()

    def interrupt(news: dict[str, Any]) -> None:
        during.update(family(os.getpid()))
        raise KeyboardInterrupt

    if reason == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            Launched(tmp_path).start(place, [endless], one_worker, interrupt)
        assert sum("pipelines.training.worker" in commandline(process) for process in during - before) == 0
        assert len(during - before) >= 2
    else:
        with pytest.raises(TrainingError, match=r"took longer than timeout_s = 1\. Raise it in the compute profile"):
            Launched(tmp_path).start(place, [endless], one_worker.model_copy(update={"timeout_s": 1}))
    deadline = time.monotonic() + 10
    while family(os.getpid()) - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert family(os.getpid()) - before == set()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_workers_do_not_outlive_a_killed_launcher(place: Any, one_worker: Compute, tmp_path: Path) -> None:
    endless = job(place, "head_only", SETTINGS["head_only"].model_copy(update={"epochs": 100_000}))
    jobs = tmp_path / "jobs.json"
    jobs.write_text(JobFile(base=place.base_folder, compute=one_worker, jobs=(endless,)).model_dump_json())
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH, jobs, tmp_path / "scratch"], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    assert launcher.stdout.readline(), "the first news: the worker trains"
    below = family(launcher.pid)
    launcher.kill()
    launcher.communicate()
    assert any("training.worker" in commandline(process) for process in below)
    deadline = time.monotonic() + 10
    while any(map(commandline, below)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [line for line in map(commandline, below) if line] == []


LAUNCH = """
import sys
from pathlib import Path
from pipelines.training.job import JobFile
from pipelines.training.launch import launch

job_file, scratch = map(Path, sys.argv[1:])
asked = JobFile.model_validate_json(job_file.read_bytes())
launch(asked.base, asked.jobs, asked.compute, lambda news: print(news, flush=True), lambda name, folder: None, scratch)
"""


def test_what_a_killed_launcher_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    left, held = tmp_path / "job-left", tmp_path / "job-held"
    for folder in (left, held):
        (folder / "out").mkdir(parents=True)
        (folder / LAUNCHER).touch()
    with FileLock(held / LAUNCHER), _work_folder(tmp_path) as work:
        assert set(tmp_path.iterdir()) == {held, work}
        with pytest.raises(Timeout), FileLock(work / LAUNCHER, timeout=0):
            pass
    assert list(tmp_path.iterdir()) == [held]


def test_a_machine_that_waits_in_vain_says_for_what(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"  # nobody listens there
        waiting = Compute(hosts=2, rendezvous=address, interface="lo", silence_s=1)
        with pytest.raises(TrainingError, match=f"No launch at {address} within silence_s = 1"):
            join(waiting, tmp_path)


def test_two_workers_go_on_to_the_same_bits(place: Any, one_worker: Compute, tmp_path: Path) -> None:
    """LoRA's dropout draws from each worker's own random numbers. One worker alone goes on too, and says so."""
    compute = Compute(workers=2, device="cpu", threads=1, checkpoint_s=0.05)
    asked = job(place, "lora", Lora(rank=2, rate=0.01, dropout=0.2), epochs=20)
    kept = asked.model_copy(update={"checkpoints": tmp_path / "checkpoints"})
    in_peace, stopped, resumed, alone = (Launched(tmp_path / name) for name in ("peace", "stopped", "resumed", "alone"))

    def interrupt(news: dict[str, Any]) -> None:
        if news["epoch"] >= 5:
            raise KeyboardInterrupt

    in_peace.start(place, [asked], compute)
    with pytest.raises(KeyboardInterrupt):
        stopped.start(place, [kept], compute, interrupt)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
    resumed.start(place, [kept], compute)
    assert {line["note"].rstrip("0123456789") for line in resumed.news} == {"resumed at step "}
    wanted, found = weights(in_peace.out / "lora"), weights(resumed.out / "lora")
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    alone.start(place, [kept.model_copy(update={"checkpoints": tmp_path / "copy"})], one_worker)
    assert all(line["note"].endswith("; not to the last bit: workers changed") for line in alone.news)


# What a worker refuses before it trains; test_tuning.py shows how such an error arrives.


def test_a_base_that_cannot_be_steered_is_a_matter_of_the_base(tmp_path: Path) -> None:
    WhisperConfig().save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"Cannot use this base: .*WhisperConfig"):
        worker._base(tmp_path, torch.device("cpu"))


def test_label_words_need_a_language_model(bert_folder: Path, gpt2_folder: Path) -> None:
    head = Head(kind="verbaliser", words=("password", "invoice"))
    with pytest.raises(RecipeError, match=r"this base has none\. Set head.kind = 'linear'"):
        worker._head(head, LABELS, load_base(bert_folder), bert_folder, seed=0)
    assert worker._head(head, LABELS, load_base(gpt2_folder), gpt2_folder, seed=0)["word_ids"].shape == (2,)


def test_a_digest_of_weights_feels_one_bit(bert_folder: Path) -> None:
    base = load_base(bert_folder)
    before = worker._digest_weights(base)
    assert worker._digest_weights(load_base(bert_folder)) == before
    weight = base.embeddings.weight
    with torch.no_grad():
        weight[3, 3] = torch.nextafter(weight[3, 3], torch.tensor(9.0))
    assert worker._digest_weights(base) != before
