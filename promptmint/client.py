"""The client of a serving team: a promoted prompt pulled, verified, and ready to answer."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.digests import canonical_json, digest_bytes
from pipelines.errors import PromptmintError, RegistryError, StoreError, TransientError
from pipelines.settings import cache_folder, store_uri, tracking_uri
from pipelines.store.local import replacing
from pipelines.store.opening import the_store
from pipelines.store.trees import load_checked_tree

if TYPE_CHECKING:
    from pipelines.inference.predictor import Predictor

REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)@(?P<version>champion|challenger|[1-9][0-9]*)")


UNREACHABLE = (TransientError, StoreError)  # what the last known good is for


@dataclass(frozen=True)
class Named:
    """What a reference stands for: a version, and the digests of its artifact's folder and of the prompt in it."""

    name: str
    version: int
    artifact: str
    digest: str


@dataclass(frozen=True)
class Found:
    """The same in the cache: the artifact's folder, and the digest that the prompt in it must have."""

    name: str
    version: int
    folder: Path
    digest: str


def load(reference: str, device: str = "cpu") -> Predictor:
    """The prompt `NAME@champion`, `NAME@challenger` or `NAME@VERSION` on its base, its proof replayed.

    Where registry or store cannot be reached, the version that the reference stood for last, with a warning.

    Raises:
        RegistryError: there is no such prompt, version or alias.
        ArtifactError: the prompt is damaged or does not answer as it was proven to.
        BaseModelError: the base is not the exact one that the prompt was minted on.
        TransientError: registry or store cannot be reached, and nothing is known of this prompt here.
        StoreError: the store refuses.
    """
    from pipelines.inference.predictor import load_predictor

    found = find_or_recall(reference)
    predictor = load_predictor(found.folder, base_of(found), found.digest, device)
    remember(reference, found)
    return predictor


def pull(reference: str, target: Path) -> Path:
    """The artifact of a prompt, copied to `target/NAME-vVERSION`; some kilobytes, verified, without its base."""
    found = find_or_recall(reference)
    from pipelines.prompts.artifact import read_prompt  # torch, which a wrong reference need not wait for

    pulled = target / f"{found.name}-v{found.version}"
    building = target / f".{pulled.name}.pulling"
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(found.folder, building)
    read_prompt(building, found.digest)
    remember(reference, found)
    shutil.rmtree(pulled, ignore_errors=True)
    building.rename(pulled)
    return pulled


def export(reference: str, layout: str, target: Path) -> tuple[Path, float]:
    """A prompt written for other tools to `target/NAME-vVERSION-LAYOUT`, and how closely they answer like the mint.

    The second is the largest difference of a logit when the proof was replayed with the other tool.

    Raises:
        ArtifactError: the layout cannot express the prompt on its base, or answers differently there.
        BaseModelError: the base is not the exact one that the prompt was minted on.
    """
    found = find_or_recall(reference)
    from pipelines.interchange.export import export as write

    exported = target / f"{found.name}-v{found.version}-{layout}"
    return exported, write(found.folder, base_of(found), layout, exported, found.digest)


def base_of(found: Found) -> Path:
    """A local copy of the base that a prompt belongs to; a person at a terminal sees a bar while it is fetched.

    Raises:
        StoreError: the store refuses, or holds no such base.
        TransientError: the store cannot be reached, or stalls; the next call goes on where this one stopped.
    """
    from rich.console import Console

    from pipelines.inference.predictor import base_from_store
    from promptmint.terminal import fetching

    with fetching(Console(stderr=True)):
        return base_from_store(found.folder, store_uri())


def find(reference: str) -> Found:
    """What a reference stands for now, as the registry says.

    Raises:
        RegistryError: there is no such prompt, version or alias.
        TransientError: registry or store cannot be reached.
        StoreError: the store refuses, or does not hold the artifact.
    """
    return fetched(named(reference))


def named(reference: str) -> Named:
    """What the registry says that a reference stands for. Raises `RegistryError` or `TransientError`."""
    from mlflow_config import names
    from mlflow_config.registry import version_tags

    name, version = resolved(reference)
    tags = version_tags(name, version)
    return Named(name, version, tags[names.TAG_ARTIFACT], tags[names.TAG_PROMPT])


def fetched(what: Named) -> Found:
    """It, in the cache. Raises `StoreError` or `TransientError`."""
    return Found(what.name, what.version, load_checked_tree(the_store(), what.artifact, cache_folder()), what.digest)


def remember(reference: str, found: Found) -> None:
    """Keep what a reference stands for, now that it is known to be good, for when it cannot be asked for."""
    record = Named(found.name, found.version, found.folder.name, found.digest)
    with suppress(StoreError), replacing(_memory(reference)) as file:
        file.write(canonical_json(asdict(record)))


def recall(reference: str) -> Found | None:
    """What a reference stood for last and was good, its artifact still whole in the cache; or None."""
    try:
        return fetched(Named(**json.loads(_memory(reference).read_bytes())))
    except (OSError, ValueError, TypeError, PromptmintError):
        return None


def find_or_recall(reference: str) -> Found:
    """What a reference stands for; what it stood for last, with a warning, where that cannot be found out.

    Raises like `find`.
    """
    try:
        return find(reference)
    except UNREACHABLE as error:
        known = recall(reference)
        if known is None:
            raise
        warnings.warn(f"{reference} is version {known.version}, the last known good: {error}", stacklevel=3)
        return known


def _memory(reference: str) -> Path:
    """Where the cache keeps what this registry said of a reference."""
    return cache_folder() / "references" / digest_bytes(tracking_uri().encode())[:12] / f"{reference}.json"


def resolved(reference: str) -> tuple[str, int]:
    """The name and version that a reference stands for."""
    from mlflow_config.registry import resolve

    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise RegistryError(
            f"{reference!r} is no reference to a prompt: write NAME@champion, NAME@challenger or NAME@VERSION."
        )
    name, version = found["name"], found["version"]
    return name, int(version) if version.isdigit() else resolve(name, version)
