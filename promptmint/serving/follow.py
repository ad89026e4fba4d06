"""Following promotions: the registry is asked again and again, and what has changed is swapped in.

Where registry or store cannot be reached, or what they give is refused, the last known good goes on being served, and
`/ready`, `/v1/prompts`, the metrics and the logs say so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from pipelines.errors import ArtifactError, BaseModelError, PromptmintError, RegistryError
from promptmint import client
from promptmint.client import Found, Named
from promptmint.serving.logs import tell
from promptmint.serving.metrics import Metrics
from promptmint.serving.served import Served


class Follower:
    """One thread that keeps what is served in step with the registry."""

    def __init__(
        self, served: Served, metrics: Metrics, references: Sequence[str], shadows: Sequence[str], every_s: float
    ) -> None:
        """Start nothing yet.

        Args:
            served: what is kept in step.
            metrics: told of swaps and of what is stale.
            references: what was asked for; each must exist.
            shadows: challengers that come and go.
            every_s: between two looks.
        """
        self._served, self._metrics = served, metrics
        self._references, self._shadows, self._every_s = references, shadows, every_s
        self._refused: dict[str, tuple[Named, PromptmintError]] = {}  # what will not do, until another is named
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)

    def start(self) -> None:
        """Look again and again from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the last look has ended."""
        self._stop.set()
        self._thread.join(timeout=5)

    def look(self) -> None:
        """Ask once what each reference stands for. Raises nothing."""
        for reference in (*self._references, *self._shadows):
            try:
                self._follow(reference)
            except Exception as error:
                self._failed(reference, error)

    def _work(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def _follow(self, reference: str) -> None:
        standing = self._served.standings().get(reference)
        try:
            version = client.resolved(reference)[1]
        except RegistryError:
            if reference not in self._shadows:
                raise
            self._served.drop(reference)  # there is no challenger now
            return
        if standing is None or standing.version != version:
            self._swap(reference)
        elif standing.stale is not None:
            self._served.mark(reference, None)
            self._metrics.stale.labels(reference).set(0)
            tell("fresh again", prompt=reference, version=version)

    def _swap(self, reference: str) -> None:
        """Serve what the registry names now; what was refused once is not fetched and proven again."""
        named = client.named(reference)
        refused = self._refused.pop(reference, None)
        try:
            if refused is not None and refused[0] == named:
                raise refused[1].with_traceback(None)
            swapped(self._served, self._metrics, reference, client.fetched(named))
        except (ArtifactError, BaseModelError) as error:
            self._refused[reference] = named, error
            raise

    def _failed(self, reference: str, error: Exception) -> None:
        """Mark a reference as stale; the logs hear of it once for each kind of failure."""
        standing, kind = self._served.standings().get(reference), type(error).__name__
        if standing is not None:
            self._served.mark(reference, f"{kind}: {error}")
            self._metrics.stale.labels(reference).set(1)
            if (standing.stale or "").startswith(f"{kind}: "):
                return
        unexpected = None if isinstance(error, PromptmintError) else error
        version = standing.version if standing else None
        tell("stale", logging.WARNING, unexpected, prompt=reference, version=version, why=f"{kind}: {error}")


def swapped(served: Served, metrics: Metrics, reference: str, found: Found, stale: str | None = None) -> None:
    """Serve what a reference stands for, and tell everybody who counts."""
    before = served.standings().get(reference)
    standing = served.put(reference, found)
    client.remember(reference, found)
    if stale:
        served.mark(reference, stale)
    metrics.version.labels(reference).set(standing.version)
    metrics.stale.labels(reference).set(1 if stale else 0)
    if before is not None:
        metrics.swaps.labels(reference).inc()
    tell(
        "serving", logging.WARNING if stale else logging.INFO, prompt=reference, version=standing.version,
        before=before.version if before else None, digest=standing.digest, proven_within=standing.proven_within,
        stale=stale,
    )  # fmt: skip
