"""MLflow held to the ledger: what differs there, and how it is put right.

Aliases and tags are projections. Anybody may move them by hand, a run may be killed between the ledger and MLflow, and
a database may come back from an old backup; the ledger is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_config.names import CHALLENGER, CHAMPION
from mlflow_config.tracking import connected


@dataclass(frozen=True)
class Difference:
    """One alias, or one tag of a version, that is not what it should be. None: it is not, or should not be, there."""

    recipe: str
    alias: str | None  # of the registered model; None where it is about a tag
    tag: str | None
    version: int | None  # that carries the tag
    found: str | None
    wanted: str | None

    def __str__(self) -> str:
        what = f"alias {self.alias!r}" if self.alias else f"tag {self.tag!r} of version {self.version}"
        return f"{self.recipe}: {what}: {self.found or 'none'} -> {self.wanted or 'none'}"


def differences(
    recipe: str, champion: int | None, challenger: int | None, tags: Mapping[int, Mapping[str, str]]
) -> tuple[list[Difference], list[int]]:
    """What is not as it should be, and the versions that MLflow does not have at all.

    An alias whose version MLflow does not have is left alone: what it stands on is older, but it answers.

    Args:
        recipe: the registered model's name.
        champion: the version that the alias should stand on, or None; `challenger` likewise.
        tags: per version of the ledger, those it should carry; other tags are nobody's business here.

    Raises:
        TransientError: MLflow cannot be reached.
        RegistryError: MLflow refuses.
    """
    with connected() as client:
        models = client.search_registered_models(f"name = '{recipe}'")
        aliases = {alias: str(v) for alias, v in client.get_registered_model(recipe).aliases.items()} if models else {}
        there = {int(v.version): dict(v.tags) for v in client.search_model_versions(f"name = '{recipe}'")}
    found = []
    for alias, version in {CHAMPION: champion, CHALLENGER: challenger}.items():
        wanted = None if version is None else str(version)
        if aliases.get(alias) != wanted and (version is None or version in there):
            found.append(Difference(recipe, alias, None, None, aliases.get(alias), wanted))
    for version in sorted(there.keys() & tags.keys()):
        for tag, wanted in tags[version].items():
            if (actual := there[version].get(tag)) != wanted:
                found.append(Difference(recipe, None, tag, version, actual, wanted))
    return found, sorted(tags.keys() - there.keys())


def repair(found: Sequence[Difference]) -> None:
    """Make everything that differed what it should be. Raises `TransientError` or `RegistryError`."""
    with connected() as client:
        for each in found:
            _set(client, each)


def _set(client: Any, it: Difference) -> None:
    if it.tag is not None:
        client.set_model_version_tag(it.recipe, str(it.version), it.tag, it.wanted)
    elif it.wanted is not None:
        client.set_registered_model_alias(it.recipe, it.alias, it.wanted)
    else:
        client.delete_registered_model_alias(it.recipe, it.alias)
