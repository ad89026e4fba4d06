"""The client of a serving team: a promoted prompt pulled, verified, and ready to answer."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RegistryError
from pipelines.settings import cache_folder, store_uri
from pipelines.store.store import the_store
from pipelines.store.trees import load_tree

if TYPE_CHECKING:
    from pipelines.inference.predictor import Predictor

REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)@(?P<version>champion|challenger|[1-9][0-9]*)")


def load(reference: str, device: str = "cpu") -> Predictor:
    """The prompt `NAME@champion`, `NAME@challenger` or `NAME@VERSION` on its base, its proof replayed.

    Raises:
        RegistryError: there is no such prompt, version or alias.
        ArtifactError: the prompt is damaged or does not answer as it was proven to.
        BaseModelError: the base is not the exact one that the prompt was minted on.
        StoreError: the store cannot be reached.
    """
    from pipelines.inference.predictor import base_from_store, load_predictor

    folder, digest = artifact(reference)
    return load_predictor(folder, base_from_store(folder, store_uri()), digest, device)


def pull(reference: str, target: Path) -> Path:
    """The artifact of a prompt, copied to `target/NAME-vVERSION`; some kilobytes, verified, without its base."""
    name, version = resolved(reference)
    folder, digest = artifact(f"{name}@{version}")
    from pipelines.prompts.artifact import read_prompt  # torch, which a wrong reference need not wait for

    pulled = target / f"{name}-v{version}"
    building = target / f".{pulled.name}.pulling"
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(folder, building)
    read_prompt(building, digest)
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
    name, version = resolved(reference)
    folder, digest = artifact(f"{name}@{version}")
    from pipelines.inference.predictor import base_from_store
    from pipelines.interchange.export import export as write

    exported = target / f"{name}-v{version}-{layout}"
    return exported, write(folder, base_from_store(folder, store_uri()), layout, exported, digest)


def artifact(reference: str) -> tuple[Path, str]:
    """The cached folder of a prompt's artifact, and the digest it must have."""
    from mlflow_config import names
    from mlflow_config.registry import version_tags

    tags = version_tags(*resolved(reference))
    return load_tree(the_store(), tags[names.TAG_ARTIFACT], cache_folder()), tags[names.TAG_PROMPT]


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
