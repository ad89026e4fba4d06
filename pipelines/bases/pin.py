"""A base pinned: mirrored into the store, every file digested, refused when it is not what it was.

Where a recipe lists digests, they decide. Where it does not, what the first run saw is remembered under the base's name
and sources, and later runs are held to it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.bases.sources import SourceFailed, fetch
from pipelines.digests import canonical_json, digest_file, digest_files, digest_json, folder_files
from pipelines.errors import BaseModelError, NotInStore
from pipelines.recipe import BasePin
from pipelines.store.store import Store
from pipelines.store.trees import object_key, save_file, tree_key


@dataclass(frozen=True)
class PinnedBase:
    """A base in the store, named by the digest of its files."""

    name: str
    digest: str
    files: dict[str, str]  # {name: SHA-256}
    source: str  # which of the pin's sources answered
    size_bytes: int
    versions: dict[str, str]  # {name: the store's own version id}, where the store keeps versions

    def card(self) -> dict[str, object]:
        """What a prompt's artifact says of the base it belongs to."""
        return {"name": self.name, "digest": self.digest, "files": self.files}


def known_base(store: Store, pin: BasePin) -> PinnedBase | None:
    """The base if the store holds it already: no source is asked."""
    try:
        if pin.files:
            return replace(base_record(store, digest_files(pin.files)), name=pin.name)
        known = json.loads(store.read(_pin_key(pin)))
        base = base_record(store, known["digest"])
        return replace(base, name=pin.name, source=known.get("source", base.source))
    except NotInStore:
        return None


def base_record(store: Store, digest: str) -> PinnedBase:
    """What was written down of the base with this digest when it was pinned. Raises `NotInStore`."""
    return PinnedBase(**json.loads(store.read(_record_key(digest))))


def pin_base(store: Store, pin: BasePin, recipe_folder: Path, scratch: Path) -> PinnedBase:
    """The base in the store, fetched from the first source whose files have the right digests.

    Args:
        store: where it is mirrored.
        pin: the recipe's `[base]`.
        recipe_folder: where relative sources start.
        scratch: a folder for downloads in progress.

    Raises:
        BaseModelError: no source gave the pinned bytes, or a source's bytes changed under the base's name.
    """
    known = known_base(store, pin)
    if known:
        _refuse_if_changed(known, pin, recipe_folder)
        return known
    scratch.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in pin.sources:
        folder = Path(tempfile.mkdtemp(prefix="base-", dir=scratch))
        try:
            fetch(source, pin.files, recipe_folder, folder)
            return _mirror(store, pin, source, _checked(folder, pin.files))
        except SourceFailed as failure:
            failures.append(f"  {source}: {failure}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise BaseModelError(
        f"No source gave the pinned base {pin.name!r}:\n" + "\n".join(failures) + "\n"
        "Check the network, add a source that you can reach (file://, s3://), or correct the digests in [base.files]."
    )


def _checked(folder: Path, wanted: dict[str, str] | None) -> Path:
    """The folder, if its bytes are those that were pinned, its weights safetensors, and a tokenizer beside them."""
    for name, digest in (wanted or {}).items():
        if (actual := digest_file(folder / name)) != digest:
            raise SourceFailed(f"{name} has SHA-256 {actual}, the pin says {digest}")
    names = [path.name for path in folder_files(folder)]
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise SourceFailed(f"it has no config.json with *.safetensors beside it, only {names!r}")
    if not any(name == "tokenizer.json" or name.startswith("vocab.") or name.endswith(".model") for name in names):
        raise SourceFailed(f"it has no tokenizer (tokenizer.json, vocab.* or *.model), only {names!r}")
    return folder


def _mirror(store: Store, pin: BasePin, source: str, folder: Path) -> PinnedBase:
    """Put the files into the store, then the record that says so, last the name that points to it."""
    files, versions, size = {}, {}, 0
    for path in folder_files(folder):
        name = path.relative_to(folder).as_posix()
        files[name] = save_file(store, path)
        size += path.stat().st_size
        if version := store.version(object_key(files[name])):
            versions[name] = version
    base = PinnedBase(pin.name, digest_files(files), files, source, size, versions)
    store.write(tree_key(base.digest), canonical_json({"files": files}))
    store.write(_record_key(base.digest), canonical_json(asdict(base)))
    store.write(_pin_key(pin), canonical_json({"name": pin.name, "digest": base.digest, "source": source}))
    return base


def _refuse_if_changed(base: PinnedBase, pin: BasePin, recipe_folder: Path) -> None:
    """Hold a folder on disk, which anyone may write to, to what was pinned from it; commits and wheels never change."""
    if not base.source.startswith("file://") or base.source not in pin.sources:
        return
    folder = recipe_folder / base.source.removeprefix("file://")
    for name, digest in base.files.items():
        if (folder / name).is_file() and (actual := digest_file(folder / name)) != digest:
            raise BaseModelError(
                f"The base {base.name!r} changed under its name: {str((folder / name).resolve())!r} has SHA-256 "
                f"{actual}, but {digest} was pinned. Restore the file; or, if another base is meant, give it another "
                "name in [base]."
            )


def _record_key(digest: str) -> str:
    return f"bases/{digest}.json"


def _pin_key(pin: BasePin) -> str:
    return f"bases/pins/{digest_json({'name': pin.name, 'sources': list(pin.sources)})}.json"
