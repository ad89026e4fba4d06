"""What no prompt changes is read once, and the training that uses it is the one that reads it in every step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.inference.base import Base, load_base
from pipelines.recipe import Optimisation, Prompt
from pipelines.tokens.template import MARKER
from pipelines.training import once
from pipelines.training.activations import Activations, Room, digest_of
from pipelines.training.gradient import cross_entropy
from pipelines.training.loop import train
from pipelines.training.once import BehindEncoder, BehindText, FromLayer, above_what_is_kept, read_once
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned, linear_head, tune

SHARED = Optimisation(epochs=3, batch_size=8)
INSERTED = Prompt(method="prompt-tuning", tokens=3, rate=0.1, head_rate=0.03, init_scale=1.0)
LATE = Prompt(method="late", layer=1, tokens=3, rate=0.1, head_rate=0.03, init_scale=1.0)
DECODER = Prompt(method="prompt-tuning", half="decoder", tokens=3, rate=0.1, init_scale=1.0)
SPOKEN = {"word_ids": torch.tensor([[7, 9], [8, -1]]), "opening": torch.tensor([0])}
MARKED = ["gpt2", "llama"]  # llama: grouped-query attention
CASES = [*((name, INSERTED) for name in MARKED), *((name, LATE) for name in ("bert", "gpt2", "llama", "t5", "bart"))]
CASES += [(name, DECODER) for name in ("t5", "bart")]
NAMES = [f"{settings.method}-{name}-{settings.half}" for name, settings in CASES]
BIG = 2**30


pytestmark = pytest.mark.usefixtures("one_thread")


def rows_for(settings: Prompt, n: int = 20, seed: int = 1) -> Rows:
    """Rows of different lengths whose label shows in every token; their marker stands before the last two."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    lengths = rng.integers(4, 14, n)
    tokens = [(rng.integers(5, 13, t) + 60 * label).tolist() for t, label in zip(lengths, labels, strict=True)]
    if settings is INSERTED:
        tokens = [[*row[:-2], MARKER, *row[-2:]] for row in tokens]
    return Rows([str(row) for row in range(n)], tokens, labels, lengths)


@pytest.fixture(params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[Path, Prompt]:
    """A base's folder and a prompt of which something is read once."""
    name, settings = request.param
    return request.getfixturevalue(f"{name}_folder"), settings


def tuned_on(base: Base, settings: Prompt) -> Tuned:
    head = SPOKEN if settings is DECODER else linear_head(base, 2, 5)
    return tune(base, settings, head, 5, marked=settings is INSERTED)


def in_double(folder: Path, settings: Prompt) -> Tuned:
    base = load_base(folder)
    base.whole.double()
    return tuned_on(base, settings).double()


def never(texts: int, of: int) -> None:
    raise AssertionError(f"text {texts} of {of} was read again")


def quiet(texts: int, of: int) -> None:
    pass


def loss_and_gradients(tuned: Tuned, model: Any, inputs: Any, labels: Any) -> list[torch.Tensor]:
    loss = cross_entropy(model(*inputs), labels)
    parameters = [parameter for _, parameter in tuned.trained()]
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


def close(left: list[torch.Tensor], right: list[torch.Tensor], share: float) -> bool:
    """Equal to a share of the largest number of each tensor."""
    pairs = zip(left, right, strict=True)
    return all(float((a - b).abs().max()) <= share * max(1.0, float(b.abs().max())) for a, b in pairs)


@pytest.mark.parametrize("kept", ["fp32", "bf16"])
def test_loss_and_gradients_are_those_of_the_whole_text(case: tuple[Path, Prompt], tmp_path: Path, kept: str) -> None:
    """In float64: exactly kept to 1e-6 (norms are float32 in Llama), in bf16, of 8 bits, to 3 %."""
    folder, settings = case
    tuned, rows = in_double(folder, settings), rows_for(settings)
    above = above_what_is_kept(tuned, [rows])
    assert isinstance(
        above, BehindEncoder if settings is DECODER else BehindText if settings is INSERTED else FromLayer
    )
    (examples,) = read_once(above, [rows], "fp32", kept, Room(tmp_path, "base", BIG), quiet)
    batch = np.array([3, 0, 11, 7, 19])
    inputs, labels = examples.batch(batch, torch.device("cpu"))
    found = loss_and_gradients(tuned, above, inputs, labels)
    wanted = loss_and_gradients(tuned, tuned, *rows.batch(batch, torch.device("cpu")))
    assert close(found, wanted, 1e-6 if kept == "fp32" else 0.03)
    assert kept == "fp32" or not close(found, wanted, 1e-6)
    assert all(float(gradient.abs().max()) > 0 for gradient in found[1:])


def trained(folder: Path, settings: Prompt, room: Room | None) -> dict[str, torch.Tensor]:
    tuned, validation = tuned_on(load_base(folder), settings), rows_for(settings, 8, 2)
    train(tuned, settings, SHARED, 7, rows_for(settings), validation, lambda news: None, room=room)
    return {name: parameter.detach().clone() for name, parameter in tuned.trained()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_where_it_is_kept_changes_no_bit(
    case: tuple[Path, Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nowhere, on the disk, found there again, and of which half found no room."""
    folder, settings = case
    nowhere = trained(folder, settings, None)
    assert same(trained(folder, settings, Room(tmp_path / "all", "base", BIG)), nowhere)
    with monkeypatch.context() as patch:
        patch.setattr(once.ReadOnce, "read", never)
        assert same(trained(folder, settings, Room(tmp_path / "all", "base", BIG)), nowhere)
    (block,) = (tmp_path / "all").rglob("*.safetensors")
    monkeypatch.setattr(once, "BLOCK_BYTES", 1)
    assert same(trained(folder, settings, Room(tmp_path / "half", "base", block.stat().st_size // 2)), nowhere)
    blocks = list((tmp_path / "half").rglob("*.safetensors"))
    assert 2 < len(blocks) < 20
    assert sum(each.stat().st_size for each in blocks) <= block.stat().st_size // 2


def test_training_in_bf16_and_in_micro_batches_learns(llama_folder: Path, tmp_path: Path) -> None:
    tuned = tuned_on(load_base(llama_folder), INSERTED)
    shared = SHARED.model_copy(update={"precision": "bf16", "epochs": 5})
    went = train(tuned, INSERTED, shared, 7, rows_for(INSERTED, 60), rows_for(INSERTED, 20, 2), lambda news: None,
                 micro_tokens=40, room=Room(tmp_path, "base", BIG))  # fmt: skip
    assert went.epochs[-1].validation_accuracy >= 0.9


def test_new_rows_cost_only_themselves(case: tuple[Path, Prompt], tmp_path: Path) -> None:
    folder, settings = case
    above = above_what_is_kept(tuned_on(load_base(folder), settings))
    assert above is not None
    rows, read = rows_for(settings), []
    for count in (18, 20, 20):
        part = Rows(rows.ids[:count], rows.tokens[:count], rows.labels[:count], rows.lengths[:count])
        read_once(above, [part], "fp32", "bf16", Room(tmp_path, "base", BIG), lambda text, of: read.append(of))
    assert read == [18] * 18 + [2] * 2


def test_what_was_read_otherwise_is_read_anew(gpt2_folder: Path, tmp_path: Path) -> None:
    room, rows = Room(tmp_path, "base", BIG), rows_for(INSERTED)
    above = above_what_is_kept(tuned_on(load_base(gpt2_folder), INSERTED))
    assert above is not None
    for precision, kept, place in (("fp32", "bf16", room), ("bf16", "bf16", room), ("fp32", "fp32", room),
                                   ("fp32", "bf16", Room(tmp_path, "other base", BIG))):  # fmt: skip
        read: list[int] = []
        read_once(above, [rows], precision, kept, place, lambda text, of, read=read: read.append(text))
        assert len(read) == len(rows)


def test_what_cannot_be_split_runs_whole(any_folder: Path) -> None:
    base = load_base(any_folder)
    marked = tune(base, INSERTED, linear_head(base, 2, 5), 5, marked=True)
    assert (above_what_is_kept(marked, [rows_for(INSERTED)]) is not None) == base.decoder, "encoders read both ways"
    begins = Rows(["0"], [[MARKER, 5, 6]], np.array([0]), np.array([2]))
    assert above_what_is_kept(marked, [begins]) is None, "there is nothing before the prompt"
    before = tune(base, INSERTED, linear_head(base, 2, 5), 5)
    assert above_what_is_kept(before) is None
    if base.decoder:
        long_words = {"word_ids": torch.tensor([[5, 6], [7, 8]])}
        assert above_what_is_kept(tune(base, INSERTED, long_words, 5, marked=True)) is None
        words = tune(base, INSERTED, {"word_ids": torch.tensor([5, 6])}, 5, marked=True)
        assert above_what_is_kept(words) is not None


# The blocks themselves.


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((4, 64), float(place)) for place, name in enumerate(names)}


def test_blocks_are_found_by_others_and_mapped(tmp_path: Path) -> None:
    room = Room(tmp_path, "base", BIG)
    assert Activations(room, "kind").add(tensors("a", "b"))
    other = Activations(room, "kind")
    other.look(["b", "c"])
    assert torch.equal(other.get("b"), torch.full((4, 64), 1.0))  # type: ignore[arg-type]
    assert other.get("a") is None and other.get("c") is None, "what nobody wants is not mapped"
    (block,) = tmp_path.rglob("*.safetensors")
    block.unlink()
    assert float(other.get("b").sum()) == 256, "what is mapped outlives its file"  # type: ignore[union-attr]


def test_the_oldest_blocks_make_room_and_ones_own_never_do(tmp_path: Path) -> None:
    first = Activations(Room(tmp_path, "old base", BIG), "kind")
    for number, name in enumerate("abc"):
        assert first.add(tensors(name))
        newest = max(tmp_path.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
    size = newest.stat().st_size
    second = Activations(Room(tmp_path, "base", 4 * size), "kind")
    assert [second.add(tensors(name)) for name in "defgh"] == [True] * 4 + [False]
    found = Activations(Room(tmp_path, "old base", BIG), "kind")
    found.look(["a", "b", "c"])
    assert not any(found.get(name) is not None for name in "abc")


def test_a_block_in_use_is_young(tmp_path: Path) -> None:
    room = Room(tmp_path, "base", BIG)
    Activations(room, "kind").add(tensors("a"))
    (block,) = tmp_path.rglob("*.safetensors")
    os.utime(block, (1000, 1000))
    Activations(room, "kind").look(["b"])
    assert block.stat().st_mtime == 1000
    Activations(room, "kind").look(["a"])
    assert block.stat().st_mtime > 1000


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: content[:5], lambda content: b""])
def test_a_damaged_block_is_removed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    room = Room(tmp_path, "base", BIG)
    Activations(room, "kind").add(tensors("a"))
    (block,) = tmp_path.rglob("*.safetensors")
    block.write_bytes(damage(block.read_bytes()))
    found = Activations(room, "kind")
    found.look(["a"])
    assert found.get("a") is None and not block.exists()


WRITER = """
import sys, torch
from pathlib import Path
from pipelines.training.activations import Activations, Room
kept = Activations(Room(Path(sys.argv[1]), "base", 2**30), "kind")
number = 0
while True:
    print("writing", flush=True)
    kept.add({f"{number}-{row}": torch.full((4096,), float(number)) for row in range(64)})
    number += 1
"""


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(9):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    found = Activations(Room(tmp_path, "base", BIG), "kind")
    found.look([f"{number}-{row}" for number in range(20) for row in range(64)])
    blocks = list(tmp_path.rglob("[!.]*.safetensors"))
    assert len(blocks) >= 5
    for path in blocks:
        for name, tensor in load_file(path).items():
            assert (tensor == float(name.split("-")[0])).all()
            assert torch.equal(found.get(name), tensor)  # type: ignore[arg-type]


def test_two_at_once_do_not_spoil_each_other(tmp_path: Path) -> None:
    """Both read everything, block by block, and either's blocks serve a third."""
    rows, room = rows_for(INSERTED), Room(tmp_path, "base", BIG)
    parts = {digest_of(row[: row.index(MARKER)]): row[: row.index(MARKER)] for row in rows.tokens}
    both = [Activations(room, "kind") for _ in range(2)]

    def fill(mine: Activations) -> None:
        for digest, part in parts.items():
            mine.add({digest: torch.tensor(part)})

    threads = [threading.Thread(target=fill, args=(mine,)) for mine in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = Activations(room, "kind")
    third.look(list(parts))
    for found in (*both, third):
        assert all(found.get(digest).tolist() == list(part) for digest, part in parts.items())  # type: ignore[union-attr]
