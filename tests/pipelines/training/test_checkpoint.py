"""A training that was stopped ends as one that was not, to the last bit; what cannot be gone on from is passed over."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from pipelines.errors import TrainingError
from pipelines.inference.base import Base, load_base
from pipelines.prompts.methods import PRESETS
from pipelines.recipe import Adapters, Full, HeadOnly, Lora, Optimisation, Prompt
from pipelines.training.checkpoint import KEPT, Keeper, content_of, read_checkpoint, stopping, write_checkpoint
from pipelines.training.loop import Trained, train
from pipelines.training.shards import Rows
from pipelines.training.tuned import linear_head, tune

METHODS: dict[str, Any] = {
    "p-tuning-v2": Prompt(method="p-tuning-v2", tokens=4, rate=0.1, dropout=0.2),
    "p-tuning": Prompt(method="p-tuning", tokens=4, hidden=8, rate=0.01, dropout=0.2),
    "lora": Lora(rank=2, rate=0.02, dropout=0.2),
    "adapters": Adapters(bottleneck=2, rate=0.02, dropout=0.2),
    "full": Full(rate=3e-3, dropout=True),
    "head_only": HeadOnly(rate=0.1),
}
SHARED = Optimisation(epochs=3, batch_size=8)  # 49 rows: seven steps an epoch


@dataclass(frozen=True)
class Stopping(Rows):
    """Rows that ask a keeper to stop as some batches, counted over a training, are taken from them."""

    keeper: Keeper = field(default_factory=Keeper)
    at: tuple[int, ...] = ()
    taken: list[int] = field(default_factory=list)

    def batch(self, rows: NDArray[Any], device: torch.device) -> Any:
        self.taken.append(len(rows))
        if len(self.taken) in self.at:
            self.keeper.asked_to_stop = True
        return super().batch(rows, device)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(bert_folder: Path) -> Base:
    return load_base(bert_folder)


@pytest.fixture(scope="module")
def rows(rows_of: Any, bert_folder: Path) -> dict[str, Rows]:
    return {"train": rows_of(bert_folder, 49, 1), "validation": rows_of(bert_folder, 20, 2)}


@dataclass(frozen=True)
class Ended:
    """What a training ended with."""

    weights: dict[str, Tensor]
    went: Trained

    def equals(self, other: Ended) -> bool:
        return (
            self.weights.keys() == other.weights.keys()
            and all(torch.equal(tensor, other.weights[name]) for name, tensor in self.weights.items())
            and (self.went.epochs, self.went.kept_epoch, self.went.curve, self.went.steps)
            == (other.went.epochs, other.went.kept_epoch, other.went.curve, other.went.steps)
        )


def trained(
    base: Base, method: str, rows: dict[str, Rows], keeper: Keeper | None = None, settings: Any = None, **watch: Any
) -> Ended:
    settings = settings or METHODS[method]
    torch.manual_seed(7)
    tuned = tune(base, settings, linear_head(base, 2, 7), 7)
    report = watch.get("report", lambda news: None)
    went = train(tuned, settings, SHARED, 7, rows["train"], rows["validation"], report, keeper)
    return Ended({name: parameter.detach().clone() for name, parameter in tuned.trained()}, went)


def stopped(base: Base, method: str, rows: dict[str, Rows], folder: Path, step: int, split: str = "train") -> None:
    """A training that is asked to stop in a step of this process, or in a batch of validation."""
    keeper = Keeper(folder)
    watched = Stopping(**vars(rows[split]), keeper=keeper, at=(step,))
    with pytest.raises(KeyboardInterrupt, match="Asked to stop: ended after step"):
        trained(base, method, {**rows, split: watched}, keeper)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "head_only"])
def test_a_training_that_is_stopped_again_and_again_ends_the_same(
    base: Base, rows: dict[str, Rows], method: str, tmp_path: Path
) -> None:
    in_peace = trained(base, method, rows)
    for step in (1, 4, 2, 7):  # after steps 1, 5, 7 (an epoch's last) and 14
        stopped(base, method, rows, tmp_path, step)
    keeper, notes = Keeper(tmp_path), []
    ended = trained(base, method, rows, keeper, report=lambda news: notes.append(news["note"]))
    assert set(notes) == {"resumed at step 14"}
    assert ended.equals(in_peace)
    assert not trained(base, method, rows, settings=METHODS[method].model_copy(update={"rate": 0.005})).equals(in_peace)


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {  # the other presets, on the other architectures
    "prompt-tuning": ("gpt2", {}),
    "prefix-tuning": ("llama", {"hidden": 8}),
    "residual": ("t5", {"bottleneck": 4}),
    "superpos": ("bart", {"basis": 6}),
    "late": ("llama", {"layer": 1}),
    "lopa": ("gpt2", {"hidden": 8, "rank": 2}),
    "dept": ("bart", {"rank": 2, "positions": 12}),
    "iapt": ("bart", {"rank": 2}),
}


@pytest.mark.parametrize("method", OTHERS)
def test_a_stopped_training_of_any_preset_ends_the_same(
    method: str, rows_of: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, own = OTHERS[method]
    folder = request.getfixturevalue(f"{name}_folder")
    base, rows = load_base(folder), {"train": rows_of(folder, 49, 1), "validation": rows_of(folder, 20, 2)}
    asked = Prompt.model_validate({"method": method, "tokens": 4, "rate": 0.01, "dropout": 0.2, **own})
    in_peace, keeper = trained(base, method, rows, settings=asked), Keeper(tmp_path)

    def ask(news: dict[str, Any]) -> None:
        keeper.asked_to_stop = "validation_loss" in news

    with pytest.raises(KeyboardInterrupt, match="Asked to stop: ended after step 8"):
        trained(base, method, rows, keeper, settings=asked, report=ask)
    again = Keeper(tmp_path)
    assert trained(base, method, rows, again, settings=asked).equals(in_peace)
    assert again.resumed == "resumed at step 8"


def test_every_preset_is_stopped_somewhere() -> None:
    assert {*METHODS, *OTHERS} >= {*PRESETS}


def test_a_head_over_kept_features_goes_on_too(base: Base, rows: dict[str, Rows], tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, every_s=1e-9)
    in_peace = trained(base, "head_only", rows, keeper)
    again = Keeper(tmp_path)
    assert trained(base, "head_only", rows, again).equals(in_peace)
    assert again.resumed.startswith("resumed at step ")


def test_validation_may_be_left(base: Base, rows: dict[str, Rows], tmp_path: Path) -> None:
    in_peace = trained(base, "lora", rows)
    stopped(base, "lora", rows, tmp_path, 1, "validation")
    keeper = Keeper(tmp_path)
    assert trained(base, "lora", rows, keeper).equals(in_peace)
    assert keeper.resumed == "resumed at step 7"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_with_a_checkpoint(
    base: Base, rows: dict[str, Rows], tmp_path: Path, number: signal.Signals
) -> None:
    keeper, before = Keeper(tmp_path), signal.getsignal(number)

    def ask(news: dict[str, Any]) -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a terminal and a launcher may both send it

    with pytest.raises(KeyboardInterrupt, match="ended after step 8"), stopping(keeper):
        trained(base, "lora", rows, keeper, report=ask)
    assert signal.getsignal(number) == before
    newest = keeper.newest()
    assert newest is not None and newest.name.startswith("0000000008-")


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty"])
def test_a_damaged_checkpoint_is_passed_over(base: Base, rows: dict[str, Rows], tmp_path: Path, damage: str) -> None:
    in_peace = trained(base, "p-tuning-v2", rows)
    for step in (2, 3):
        stopped(base, "p-tuning-v2", rows, tmp_path, step)
    older, newest = sorted(tmp_path.iterdir())
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes({"one bit": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    keeper = Keeper(tmp_path)
    assert trained(base, "p-tuning-v2", rows, keeper).equals(in_peace)
    assert keeper.note == "resumed at step 2; an unusable checkpoint was passed over"
    assert list(tmp_path.iterdir()) == [older]


def test_a_checkpoint_of_something_else_is_passed_over(base: Base, rows: dict[str, Rows], tmp_path: Path) -> None:
    stopped(base, "lora", rows, tmp_path, 2)
    keeper = Keeper(tmp_path)
    assert trained(base, "p-tuning-v2", rows, keeper).equals(trained(base, "p-tuning-v2", rows))
    assert keeper.note == "an unusable checkpoint was passed over"


def test_going_on_with_other_threads_says_that_bits_may_differ(
    base: Base, rows: dict[str, Rows], tmp_path: Path
) -> None:
    stopped(base, "lora", rows, tmp_path, 2)
    torch.set_num_threads(2)
    try:
        keeper = Keeper(tmp_path)
        trained(base, "lora", rows, keeper)
    finally:
        torch.set_num_threads(1)
    assert keeper.note == "resumed at step 2; not to the last bit: threads changed"


def test_a_checkpoint_is_safetensors_and_json_and_the_last_three_stay(tmp_path: Path) -> None:
    (tmp_path / ".writing-left").write_bytes(b"by a killed writer")
    for step in range(KEPT + 2):
        write_checkpoint(tmp_path, step, {"a": torch.full((2,), float(step))}, {"step": step, "third": 1 / 3})
    paths = sorted(tmp_path.glob("0*"))
    assert [int(path.name.partition("-")[0]) for path in paths] == [2, 3, 4] and KEPT == 3
    with safe_open(paths[-1], framework="pt") as file:
        assert json.loads(file.metadata()["facts"]) == {"step": 4, "third": 1 / 3}
    content = content_of(read_checkpoint(paths[-1]))
    assert content is not None and content[0]["a"].tolist() == [4.0, 4.0]
    assert read_checkpoint(tmp_path / "none.safetensors") == b""


def test_what_a_killed_writer_left_is_removed(base: Base, rows: dict[str, Rows], tmp_path: Path) -> None:
    (tmp_path / ".writing-left").write_bytes(b"half")
    trained(base, "lora", rows, Keeper(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_costs_the_checkpoint_alone(base: Base, rows: dict[str, Rows], tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    in_peace = trained(base, "full", rows)
    keeper, notes = Keeper(tmp_path, every_s=1e-9), []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        ended = trained(base, "full", rows, keeper, report=lambda news: notes.append(news["note"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.equals(in_peace)
    assert notes and all(note.startswith("no checkpoint could be written, training goes on: ") for note in notes)
    assert list(tmp_path.iterdir()) == []


def test_what_is_slow_to_write_is_written_seldom(tmp_path: Path) -> None:
    assert not Keeper(None, every_s=1e-9).due()
    keeper = Keeper(tmp_path, every_s=0.05)
    assert not keeper.due()
    time.sleep(0.06)
    assert keeper.due()
    keeper._cost_s = 1.0
    assert not keeper.due()


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    base: Base, rows: dict[str, Rows], tmp_path: Path
) -> None:
    endless = METHODS["full"].model_copy(update={"rate": 1e30})
    with pytest.raises(
        TrainingError, match=r"became (nan|inf) at step \d+ with rate 1e\+30\. .*There is no checkpoint"
    ):
        trained(base, "full", rows, Keeper(tmp_path), endless)
    stopped(base, "full", rows, tmp_path, 3)
    (good,) = tmp_path.iterdir()
    endless = METHODS["full"].model_copy(update={"rate": 1e60})  # the weights become infinite at once
    with pytest.raises(TrainingError, match=rf"The last good checkpoint is '{good}'\."):
        trained(base, "full", rows, Keeper(tmp_path, every_s=1e-9), endless)
    assert list(tmp_path.iterdir()) == [good], "weights that are no numbers are not kept"
