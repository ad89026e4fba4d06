"""What is needed stays, what is young stays, and the rest goes in an order that leaves nothing dangling."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.digests import canonical_json
from pipelines.errors import LedgerError
from pipelines.garbage import ACTIVATIONS, Findings, abandoned, find, remove, totals, unused
from pipelines.memo import Stage, recall, remember
from pipelines.promotion.ledger import register
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree, object_key, save_bytes, save_tree, tree_key

WEEK = timedelta(days=7)
LATER = timedelta(days=30)
VALIDATE, TOKENIZE, TRAIN = Stage("validate", 1), Stage("tokenize", 1), Stage("train", 4)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def tree(store: LocalStore, tmp_path: Path, *words: str) -> str:
    """The digest of a folder with a file per word."""
    folder = tmp_path / "-".join(words)
    folder.mkdir()
    for word in words:
        (folder / word).write_text(word)
    return save_tree(store, folder)


def record(store: LocalStore, run_key: str, **digests: str) -> None:
    store.write(f"runs/tickets/{run_key}.json", canonical_json({"run_key": run_key, **digests}))


def look(store: LocalStore, registered: set[str] = frozenset(), after: timedelta = LATER) -> Findings:  # type: ignore[assignment]
    return find(store, store, registered, WEEK, datetime.now(UTC) + after)


def garbage(store: LocalStore, registered: set[str] = frozenset(), after: timedelta = LATER) -> set[str]:  # type: ignore[assignment]
    return {item.key for item in look(store, registered, after).garbage}


def test_what_a_run_names_stays_with_all_that_it_is_made_of(store: LocalStore, tmp_path: Path) -> None:
    snapshot, weights = tree(store, tmp_path, "rows", "shared"), tree(store, tmp_path, "weights")
    lost = tree(store, tmp_path, "lost", "shared")
    record(store, "a" * 64, data_digest=snapshot, artifact=weights)
    expected = {tree_key(lost), *(key for key in store.keys("objects/") if store.read(key) == b"lost")}
    assert garbage(store) == expected and len(expected) == 2
    remove(store, look(store).garbage)
    assert garbage(store) == set()
    assert {path.name for path in load_tree(store, snapshot, tmp_path / "cache").iterdir()} == {"rows", "shared"}


def test_a_base_and_what_it_is_pinned_to_stay(store: LocalStore, tmp_path: Path) -> None:
    base = tree(store, tmp_path, "config", "model")
    assert len(garbage(store)) == 3
    store.write(f"bases/{base}.json", canonical_json({"digest": base}))
    assert garbage(store) == set()


def test_data_that_were_announced_stay_until_others_are(store: LocalStore, tmp_path: Path) -> None:
    store.write("watch/tickets.json", canonical_json({"snapshot": tree(store, tmp_path, "old")}))
    assert garbage(store) == set()
    store.write("watch/tickets.json", canonical_json({"snapshot": tree(store, tmp_path, "new")}))
    assert len(garbage(store)) == 2


def test_what_the_registry_names_stays(store: LocalStore, tmp_path: Path) -> None:
    artifact = tree(store, tmp_path, "prompt")
    assert tree_key(artifact) in garbage(store)
    assert garbage(store, {artifact}) == set()


def test_what_follows_from_what_stays_stays_too_but_a_training_only_where_a_run_names_it(
    store: LocalStore, tmp_path: Path
) -> None:
    snapshot, split, shards = (tree(store, tmp_path, word) for word in ("snapshot", "split", "shards"))
    kept, abandoned = tree(store, tmp_path, "kept"), tree(store, tmp_path, "abandoned")
    remember(store, VALIDATE, {"snapshot": snapshot}, {"split_trees": {"train": split}}, 1.0)
    remember(store, TOKENIZE, {"split": split}, {"tree": shards}, 1.0)
    remember(store, TRAIN, {"rate": 1, "shards": shards}, {"tree": kept}, 1.0)
    remember(store, TRAIN, {"rate": 2, "shards": shards}, {"tree": abandoned}, 1.0)
    record(store, "a" * 64, data_digest=snapshot, trained=kept)
    found = look(store)
    gone = {TRAIN.key({"rate": 2, "shards": shards}), tree_key(abandoned), object_key_of(store, b"abandoned")}
    assert {item.key for item in found.garbage} == gone
    assert [item.key.partition("/")[0] for item in found.garbage] == ["memo", "trees", "objects"]
    assert totals(found)["memo"] == {
        "kept": 3, "kept_bytes": sum(i.size_bytes for i in found.kept if i.key.startswith("memo/")),
        "garbage": 1, "garbage_bytes": found.garbage[0].size_bytes,
    }  # fmt: skip


def object_key_of(store: LocalStore, content: bytes) -> str:
    (key,) = [key for key in store.keys("objects/") if store.read(key) == content]
    return key


def test_a_memo_goes_with_what_it_was_made_from(store: LocalStore, tmp_path: Path) -> None:
    snapshot, split = tree(store, tmp_path, "snapshot"), tree(store, tmp_path, "split")
    remember(store, VALIDATE, {"snapshot": snapshot}, {"tree": split}, 1.0)
    remember(store, VALIDATE, {"snapshot": "9" * 64}, {"tree": split}, 1.0)  # lost long ago
    assert garbage(store) == set(store.keys(""))


def test_what_is_young_stays_with_all_that_it_names(store: LocalStore, tmp_path: Path) -> None:
    old, half = tree(store, tmp_path, "old"), save_bytes(store, b"of a tree that is still being written")
    aged(store)
    assert garbage(store, after=timedelta()) == set(store.keys(""))
    remember(store, TRAIN, {"shards": "7" * 64}, {"tree": old}, 1.0)
    assert garbage(store, after=timedelta()) == {object_key(half)}
    store.write(object_key(half), b"of a tree that is still being written")
    assert garbage(store, after=timedelta()) == set()


def test_what_a_run_in_progress_remembers_becomes_young(store: LocalStore, tmp_path: Path) -> None:
    inputs = {"shards": "7" * 64}
    remember(store, TRAIN, inputs, {"tree": tree(store, tmp_path, "weights")}, 1.0)
    aged(store)
    assert len(garbage(store, after=timedelta())) == 3
    assert recall(store, TRAIN, inputs)
    assert garbage(store, after=timedelta()) == set()


def test_what_was_written_by_a_clock_ahead_of_ours_is_young(store: LocalStore) -> None:
    key = object_key(save_bytes(store, b"from the future"))
    (store.folder / "objects" / ".writing-1").write_bytes(b"half")
    ahead = (datetime.now(UTC) + LATER).timestamp()
    for path in (store.folder / key, store.folder / "objects" / ".writing-1"):
        os.utime(path, (ahead, ahead))
    assert garbage(store, after=timedelta()) == set()
    assert abandoned(store, WEEK) == ()
    assert len(abandoned(store, WEEK, datetime.now(UTC) + 2 * LATER)) == 1


def aged(store: LocalStore) -> None:
    """Make everything in the store a month old."""
    moment = (datetime.now(UTC) - LATER).timestamp()
    for key in store.keys(""):
        os.utime(store.folder / key, (moment, moment))


def test_what_is_not_the_stores_own_is_left_alone(store: LocalStore) -> None:
    store.write("notes/about-this-bucket.txt", b"keep")
    store.write("ledgers", b"keep")
    assert look(store) == Findings((), ())


def test_a_version_that_nobody_can_tell_about_stops_everything(store: LocalStore, tmp_path: Path) -> None:
    tree(store, tmp_path, "prompt")
    prompt, run = "b" * 64, "a" * 64
    register(store, "tickets", 1, prompt_digest=prompt, verdict="passed", run_key=run, who="flow", why="")
    with pytest.raises(LedgerError, match=r"version 1 of 'tickets'.*Nothing was removed"):
        find(store, store, set(), WEEK)
    assert len(garbage(store, {prompt})) == 2
    record(store, run)
    assert len(garbage(store)) == 2


def test_a_digest_is_exactly_64_digits(store: LocalStore, tmp_path: Path) -> None:
    digest = tree(store, tmp_path, "prompt")
    store.write("runs/tickets/x.json", json.dumps({"longer": digest + "0", "shorter": digest[:-1]}).encode())
    assert tree_key(digest) in garbage(store)


def test_what_was_read_once_goes_when_nobody_uses_it(tmp_path: Path) -> None:
    import torch

    from pipelines.settings import activations_folder
    from pipelines.training.activations import Activations, Room

    at_home = LocalStore(tmp_path)
    kept = Activations(Room(activations_folder(tmp_path), "b" * 64, 2**30), "kind")
    for name in ("used", "unused"):
        kept.add({name: torch.ones(8)})
    before = (datetime.now(UTC) - LATER).timestamp()
    blocks = {path for path in tmp_path.rglob("*.safetensors") if not os.utime(path, (before, before))}
    assert len(blocks) == 2 == len(unused(at_home, WEEK).garbage)
    Activations(Room(activations_folder(tmp_path), "b" * 64, 2**30), "kind").look(["used"])
    found = unused(at_home, WEEK)
    figures = totals(found, [ACTIVATIONS])[ACTIVATIONS]
    assert (figures["kept"], figures["garbage"]) == (1, 1) and figures["garbage_bytes"] > 0
    remove(at_home, found.garbage)
    (left,) = tmp_path.rglob("*.safetensors")
    assert left.name in found.kept[0].key
