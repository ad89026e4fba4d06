"""A base is the one that was pinned, wherever it comes from and however often it is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.bases.pin import base_record, known_base, pin_base
from pipelines.digests import digest_file, digest_files, digest_folder
from pipelines.errors import BaseModelError, CorruptObject, NotInStore
from pipelines.recipe import BasePin
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_checked_tree, object_key, tree_files


def test_a_base_is_mirrored_and_named_by_its_bytes(
    store: LocalStore, pin: BasePin, base: Path, digests: dict[str, str], tmp_path: Path
) -> None:
    made = pin_base(store, pin, base.parent, tmp_path / "scratch")
    assert made.digest == digest_files(digests) and made.files == digests == tree_files(store, made.digest)
    assert made.source == "file://base" and made.versions == {}
    assert made.size_bytes == sum((base / name).stat().st_size for name in digests)
    assert made.card() == {"name": "tiny/base", "digest": made.digest, "files": digests}
    assert base_record(store, made.digest) == made
    assert list((tmp_path / "scratch").iterdir()) == []
    folder = load_checked_tree(store, made.digest, tmp_path / "cache")
    assert digest_folder(folder) == made.digest


def test_it_is_known_afterwards_without_any_source(store: LocalStore, pin: BasePin, base: Path, tmp_path: Path) -> None:
    assert known_base(store, pin) is None
    made = pin_base(store, pin, base.parent, tmp_path)
    shutil.rmtree(base)
    assert known_base(store, pin) == made == pin_base(store, pin, base.parent, tmp_path)
    elsewhere = pin.model_copy(update={"name": "other", "sources": ("hf://org/model@0",)})
    known = known_base(store, elsewhere)  # the digests say that it is the same base
    assert known is not None and known.digest == made.digest and known.name == "other"


def test_without_digests_the_first_sight_decides(store: LocalStore, pin: BasePin, base: Path, tmp_path: Path) -> None:
    loose = pin.model_copy(update={"files": None})
    made = pin_base(store, loose, base.parent, tmp_path)
    assert made.files == pin.files
    assert known_base(store, loose) == made
    assert known_base(store, loose.model_copy(update={"name": "other"})) is None


@pytest.mark.parametrize("listed", [True, False])
def test_a_base_changed_under_its_name_is_refused(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path, listed: bool
) -> None:
    pin = pin if listed else pin.model_copy(update={"files": None})
    made = pin_base(store, pin, base.parent, tmp_path)
    (base / "model.safetensors").write_text("other weights")
    with pytest.raises(
        BaseModelError, match=r"'tiny/base' changed under its name: '/.*model.safetensors' has SHA-256"
    ) as caught:
        pin_base(store, pin, base.parent, tmp_path)
    assert made.files["model.safetensors"] in str(caught.value) and "another name in [base]" in str(caught.value)
    renamed = pin.model_copy(update={"name": "tiny/other", "files": None})
    assert pin_base(store, renamed, base.parent, tmp_path).digest != made.digest


def test_a_folder_is_held_to_its_pin_however_others_spell_it(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path
) -> None:
    first = pin.model_copy(update={"files": None, "sources": (f"file://{base}",)})
    pin_base(store, first, base.parent, tmp_path)
    pin_base(store, pin.model_copy(update={"name": "tiny/second", "files": None}), base.parent, tmp_path)
    assert known_base(store, first).source == f"file://{base}"  # type: ignore[union-attr]
    (base / "model.safetensors").write_text("other weights")
    with pytest.raises(BaseModelError, match="'tiny/base' changed under its name"):
        pin_base(store, first, base.parent, tmp_path)


def test_a_base_without_a_tokenizer_is_refused_before_anything_is_trained(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path
) -> None:
    (base / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"file://base: it has no tokenizer \(tokenizer.json, vocab"):
        pin_base(store, pin.model_copy(update={"files": None}), base.parent, tmp_path)


def test_the_next_source_is_asked_when_one_has_other_bytes(
    store: LocalStore, pin: BasePin, base: Path, spoilt: Path, tmp_path: Path
) -> None:
    sources = ("file://spoilt", "file://nowhere", "hf://org/model@" + "0" * 40, "file://base")
    made = pin_base(store, pin.model_copy(update={"sources": sources}), base.parent, tmp_path / "scratch")
    assert made.source == "file://base" and made.files == pin.files
    assert list((tmp_path / "scratch").iterdir()) == []


def test_when_every_source_fails_each_is_named(
    store: LocalStore, pin: BasePin, base: Path, spoilt: Path, tmp_path: Path
) -> None:
    (base / "tokenizer.json").unlink()
    sources = ("file://spoilt", "file://base", "file://nowhere", "hf://org/model@" + "0" * 40)
    with pytest.raises(BaseModelError) as caught:
        pin_base(store, pin.model_copy(update={"sources": sources}), base.parent, tmp_path)
    message = str(caught.value)
    assert "No source gave the pinned base 'tiny/base'" in message and "Check the network, add a source" in message
    reasons = ("it lacks ['tokenizer.json']", "there is no folder", "Offline")
    reasons = (f"model.safetensors has SHA-256 {digest_file(spoilt / 'model.safetensors')}", *reasons)
    for line, source, reason in zip(message.splitlines()[1:5], sources, reasons, strict=True):
        assert line.startswith(f"  {source}: {reason}")
    assert store.keys("") == []


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_base_is_refused(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path, missing: str
) -> None:
    (base / missing).unlink()
    with pytest.raises(BaseModelError, match=r"it has no config.json with \*.safetensors beside it, only \["):
        pin_base(store, pin.model_copy(update={"files": None}), base.parent, tmp_path)


def test_a_source_of_no_known_form_is_no_matter_of_trying_the_next(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match="cannot come from 'ftp://base'"):
        pin_base(store, pin.model_copy(update={"sources": ("ftp://base", "file://base")}), base.parent, tmp_path)


@pytest.mark.parametrize("spoil", ["changed", "gone", "added"])
def test_a_spoilt_copy_in_the_cache_is_fetched_anew(
    store: LocalStore, pin: BasePin, base: Path, tmp_path: Path, spoil: str
) -> None:
    made = pin_base(store, pin, base.parent, tmp_path)
    folder = load_checked_tree(store, made.digest, tmp_path / "cache")
    match spoil:
        case "changed":
            (folder / "model.safetensors").write_text("weightt")
        case "gone":
            (folder / "config.json").unlink()
        case "added":
            (folder / "adapter_config.json").write_text("{}")
    assert digest_folder(load_checked_tree(store, made.digest, tmp_path / "cache")) == made.digest


def test_a_spoilt_object_in_the_store_is_refused(store: LocalStore, pin: BasePin, base: Path, tmp_path: Path) -> None:
    made = pin_base(store, pin, base.parent, tmp_path)
    load_checked_tree(store, made.digest, tmp_path / "cache")
    store.write(object_key(made.files["model.safetensors"]), b"weightt")
    assert load_checked_tree(store, made.digest, tmp_path / "cache")  # what was fetched before is whole
    (tmp_path / "cache" / made.digest / "model.safetensors").write_text("weightt")
    with pytest.raises(CorruptObject, match=made.files["model.safetensors"]):
        load_checked_tree(store, made.digest, tmp_path / "cache")


def test_a_base_that_nobody_pinned(store: LocalStore) -> None:
    with pytest.raises(NotInStore):
        base_record(store, "0" * 64)
