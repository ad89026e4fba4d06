"""Versions served on demand: a client may have any version of a prompt it may ask served beside what was named.

They are found, verified and proven like any other, and there is a bound: beyond it the one that was asked for the
longest ago leaves. What the server was started with never leaves.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Collection

from mlflow_config import registry
from pipelines.errors import ArtifactError, BaseModelError, PromptmintError, RegistryError
from promptmint import client
from promptmint.serving.follow import swapped
from promptmint.serving.logs import tell
from promptmint.serving.metrics import Metrics
from promptmint.serving.served import Served, Standing


class NoSuchVersion(PromptmintError):
    """The registry has no such version."""


class Refused(PromptmintError):
    """A version that cannot answer here."""


class Unreachable(PromptmintError):
    """Registry or store cannot be asked now."""


class OnDemand:
    """What is served beside the references that a server was started with. One call at a time: hold `turn`."""

    def __init__(self, served: Served, metrics: Metrics, named: Collection[str], most: int) -> None:
        """Serve nothing on demand yet.

        Args:
            served: where versions come and go.
            metrics: told of what comes and goes.
            named: references that never leave.
            most: how many versions there may be on demand at once; 0: none.
        """
        self.turn = asyncio.Lock()  # whoever waits for it keeps no thread
        self.most = most
        self._served, self._metrics, self._named = served, metrics, frozenset(named)
        self._asked: dict[str, int] = {}  # when each was asked for, counted
        self._count = itertools.count()

    def versions(self, name: str) -> list[registry.Version]:
        """The versions of a prompt in the registry, the newest first. Raises `Unreachable`."""
        try:
            return registry.versions(name)
        except PromptmintError as error:
            raise _unreachable(name, error) from error

    def serve(self, name: str, version: int) -> Standing:
        """What answers as `NAME@VERSION` from the next batch on.

        Raises:
            NoSuchVersion: the registry has none of this number.
            Refused: it was minted on another base, is damaged, or does not answer as it was proven to; or the server
                takes none on demand.
            Unreachable: registry or store cannot be asked.
        """
        reference = f"{name}@{version}"
        if reference in self._named:
            return self._served.standing(reference)
        if reference not in self._served.standings():
            self._load(name, version)
        self._asked[reference] = next(self._count)
        while len(self._asked) > self.most:
            self._let_go(min(self._asked, key=self._asked.__getitem__))
        return self._served.standing(reference)

    def _load(self, name: str, version: int) -> None:
        reference = f"{name}@{version}"
        if not self.most:
            raise Refused("This server takes no versions on demand: start it with this one, or with --on-demand.")
        try:
            swapped(self._served, self._metrics, reference, client.find(reference))
        except RegistryError as error:
            raise NoSuchVersion(f"The registry has no version {version} of {name!r}.") from error
        except BaseModelError as error:
            raise _refused(reference, error, "it was minted on another base than this server holds") from error
        except ArtifactError as error:
            raise _refused(reference, error, "it is damaged, or does not answer as it was proven to") from error
        except PromptmintError as error:
            raise _unreachable(reference, error) from error

    def _let_go(self, reference: str) -> None:
        del self._asked[reference]
        self._served.drop(reference)
        for gauge in (self._metrics.version, self._metrics.stale):
            gauge.remove(reference)
        tell("let go", prompt=reference)


def _refused(reference: str, error: Exception, why: str) -> Refused:
    """The error for the client, which does not say what lies where; the logs do."""
    tell("refused on demand", logging.WARNING, prompt=reference, why=f"{type(error).__name__}: {error}")
    return Refused(f"{reference} cannot be served here: {why}.")


def _unreachable(what: str, error: Exception) -> Unreachable:
    tell("unreachable", logging.WARNING, prompt=what, why=f"{type(error).__name__}: {error}")
    return Unreachable("Registry or store cannot be asked now: try again later.")
