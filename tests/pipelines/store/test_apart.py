"""A store over another: what lies below is seen, what is remembered below is not, and nothing is written there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import AlreadyInStore, NotInStore
from pipelines.memo import Stage, once
from pipelines.store.apart import Apart
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, save_tree

STAGE = Stage("train", 1)


@pytest.fixture
def below(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "below")


@pytest.fixture
def apart(below: LocalStore, tmp_path: Path) -> Apart:
    return Apart(below, LocalStore(tmp_path / "own"))


def test_what_lies_below_is_seen_and_what_is_written_goes_elsewhere(
    below: LocalStore, apart: Apart, tmp_path: Path
) -> None:
    below.write("objects/a", b"below")
    assert apart.read("objects/a") == b"below" and apart.has("objects/a") and apart.version("objects/a") is None
    apart.write("objects/a", b"own")
    apart.write("objects/b", b"new")
    assert (apart.read("objects/a"), below.read("objects/a")) == (b"own", b"below")
    assert (apart.keys("objects/"), below.keys("objects/")) == (["objects/a", "objects/b"], ["objects/a"])
    assert [item.size_bytes for item in apart.items("")] == [3, 3]
    apart.download("objects/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"own"
    with pytest.raises(AlreadyInStore):
        apart.create("objects/b", b"again")
    apart.delete("objects/a")
    assert apart.read("objects/a") == b"below"
    with pytest.raises(NotInStore):
        apart.read("objects/c")


def test_a_stage_that_is_remembered_below_runs_again(below: LocalStore, apart: Apart) -> None:
    once(below, STAGE, {"seed": 1}, lambda: {"made": "below"})
    assert not apart.has(STAGE.key({"seed": 1})) and apart.keys("memo/") == []
    assert once(apart, STAGE, {"seed": 1}, lambda: {"made": "again"}).value == {"made": "again"}
    assert once(apart, STAGE, {"seed": 1}, lambda: {"made": "a third time"}).reused
    assert once(below, STAGE, {"seed": 1}, dict).value == {"made": "below"}


def test_trees_of_both_are_one(below: LocalStore, apart: Apart, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "known").write_text("known")
    known = save_tree(below, tmp_path / "folder")
    (tmp_path / "folder" / "new").write_text("new")
    new = save_tree(apart, tmp_path / "folder")
    assert {path.name for path in load_tree(apart, new, tmp_path / "cache").iterdir()} == {"known", "new"}
    assert load_tree(apart, known, tmp_path / "cache").is_dir()
    assert len(below.keys("trees/")) == 1 and len(below.keys("objects/")) == 1
