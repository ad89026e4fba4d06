"""What is served: references, the version each stands for now, and the engine that answers for all of them.

In the engine every version has a name of its own, `NAME@VERSION`, so that two of them can be there at once. A swap
proves the new one beside the old, then changes what the reference stands for between two batches, then lets the old
one go: a row is answered by one version or by the other, and the answer says by which.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from pipelines.errors import PromptmintError, listed
from pipelines.inference.engine import Engine
from pipelines.inference.mixed import Text
from pipelines.inference.predictor import Answer
from pipelines.inference.untouched import Untouched, answers_untouched
from pipelines.recipe import Template
from promptmint.client import Found
from promptmint.serving.logs import tell


class Row(NamedTuple):
    """One text to answer, or two for a prompt of pairs; where `untouched`, by the base without the prompt."""

    reference: str
    text: Text
    untouched: bool = False


class NotServed(PromptmintError):
    """A reference that stands for nothing here."""


@dataclass(frozen=True)
class Standing:
    """A reference, and the version it stands for."""

    reference: str
    name: str
    version: int
    digest: str
    base_digest: str
    labels: tuple[str, ...]
    pair: bool  # whether it is asked with two texts
    untouched: bool  # whether the base alone has an answer too
    writes: bool  # whether it answers with a text, and not with a label
    proven_within: float
    since: str  # ISO 8601, UTC
    stale: str | None = None  # why it may be out of date

    @property
    def key(self) -> str:
        """What the engine calls this version."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Answered:
    """An answer, who gave it, and what the challenger said, where one rides along."""

    standing: Standing
    answer: Answer
    challenger: tuple[Standing, Answer] | None = None
    untouched: bool = False


class Served:
    """The prompts of one server. Safe to use from several threads."""

    def __init__(self, engine: Engine, shadow: bool = False) -> None:
        """Serve nothing yet; with `shadow`, champions' texts are answered by their challengers too."""
        self._engine = engine
        self._shadow = shadow
        self._standings: dict[str, Standing] = {}
        self._changing = threading.Lock()  # one change at a time: each starts from what the last one left
        self._between_batches = threading.Lock()

    @property
    def writes(self) -> bool:
        """Whether the base can write: on after any text, or with prompts that were tuned for it."""
        return self._engine.base.lm_head is not None

    def put(self, reference: str, found: Found) -> Standing:
        """What the reference stands for from the next batch on.

        Raises:
            ArtifactError: the version is damaged or does not answer as it was proven to; the old one stays.
            BaseModelError: it belongs to another base; the old one stays.
        """
        key = f"{found.name}@{found.version}"
        with self._changing:
            proven_within = self._engine.add(key, found.folder, found.digest)
            prompt = self._engine.prompts()[key]
            standing = Standing(
                reference, found.name, found.version, found.digest, prompt.card["base"]["digest"], tuple(prompt.labels),
                Template(**prompt.card["template"]).of_pairs, answers_untouched(prompt.card), prompt.writes,
                proven_within, datetime.now(UTC).isoformat(timespec="seconds"),
            )  # fmt: skip
            self._change({**self._standings, reference: standing})
        return standing

    def drop(self, reference: str) -> None:
        """Serve it no longer; nothing happens where it is not served."""
        with self._changing:
            self._change({name: standing for name, standing in self._standings.items() if name != reference})

    def mark(self, reference: str, stale: str | None) -> None:
        """Note why a reference may be out of date, or that it is not."""
        with self._changing:
            self._change({**self._standings, reference: replace(self._standings[reference], stale=stale)})

    def standings(self) -> dict[str, Standing]:
        """What is served now, by reference."""
        return self._standings

    def standing(self, reference: str) -> Standing:
        """What a reference stands for now. Raises `NotServed`."""
        if reference not in (standings := self._standings):
            raise NotServed(f"No prompt {reference!r} is served here; there are {listed(standings)}.")
        return standings[reference]

    def answer(self, rows: Sequence[Row]) -> list[Answered]:
        """An answer per row, all rows of one reference by one version.

        Raises:
            NotServed: a reference stands for nothing.
            BaseModelError: the untouched base is asked for labels that it cannot score.
            DataError: a text has no tokens, or is one where its prompt wants two, or the other way round.
        """
        with self._between_batches:
            standings = [self.standing(row.reference) for row in rows]
            asked = [(_name(standing, row), row.text) for standing, row in zip(standings, rows, strict=True)]
            riders = {
                place: rider
                for place, (standing, row) in enumerate(zip(standings, rows, strict=True))
                if not row.untouched and (rider := self._rider(standing))
            }
            answers, rode = self._predict(asked, [(rider.key, asked[place][1]) for place, rider in riders.items()])
        beside = {place: (rider, answer) for (place, rider), answer in zip(riders.items(), rode, strict=False)}
        return [
            Answered(standing, answer, beside.get(place), row.untouched)
            for place, (standing, answer, row) in enumerate(zip(standings, answers, rows, strict=True))
        ]

    def generate(self, row: Row, max_new_tokens: int | None) -> tuple[Standing, Iterator[str]]:
        """Which version writes on after a text, and what it writes, in pieces as they come.

        Raises:
            NotServed: the reference stands for nothing here.
            BaseModelError: the base is an encoder, which does not write.
            DataError: as for `answer`.
        """
        with self._between_batches:
            standing = self.standing(row.reference)
            return standing, self._engine.generate(_name(standing, row), row.text, max_new_tokens)

    def _rider(self, standing: Standing) -> Standing | None:
        """The challenger that answers what this champion is asked."""
        champion = self._shadow and standing.reference == f"{standing.name}@champion"
        return self._standings.get(f"{standing.name}@challenger") if champion else None

    def _predict(
        self, asked: Sequence[tuple[str | Untouched, Text]], riders: Sequence[tuple[str, Text]]
    ) -> tuple[list[Answer], ...]:
        """The answers, and the riders' as rows of the same batch; a rider that fails costs nobody an answer."""
        try:
            answers = self._engine.predict([*asked, *riders])
        except Exception as error:
            if not riders:
                raise
            tell("shadow failed", logging.WARNING, error, riders=sorted({key for key, _ in riders}))
            return self._engine.predict(asked), []
        return answers[: len(asked)], answers[len(asked) :]

    def _change(self, standings: dict[str, Standing]) -> None:
        """Put other standings in the place of these, between two batches; versions that nobody needs are let go."""
        with self._between_batches:
            gone = {each.key for each in self._standings.values()} - {each.key for each in standings.values()}
            self._standings = standings
            for key in gone:
                self._engine.remove(key)


def _name(standing: Standing, row: Row) -> str | Untouched:
    """Whom the engine is asked for in the place of a reference."""
    return Untouched(standing.key) if row.untouched else standing.key
