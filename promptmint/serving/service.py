"""Everything one server is made of, loaded and proven before it listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import PromptmintError
from promptmint import client
from promptmint.client import Found
from promptmint.serving.access import Access
from promptmint.serving.batching import Batcher
from promptmint.serving.follow import Follower, swapped
from promptmint.serving.limits import BATCH_ROWS, ON_DEMAND, WAITING_ROWS
from promptmint.serving.logs import tell
from promptmint.serving.metrics import Metrics
from promptmint.serving.on_demand import OnDemand
from promptmint.serving.served import Answered, Row, Served


@dataclass(frozen=True)
class Options:
    """How a server works; every one of them is an option of `promptmint serve`."""

    every_s: float = 10.0  # between two looks at the registry
    shadow: bool = False
    device: str = "cpu"
    batch_rows: int = BATCH_ROWS
    waiting_rows: int = WAITING_ROWS
    drain_s: float = 30.0  # for answers under way when the server is asked to stop
    log_texts: bool = False
    tokens: Path | None = None  # a file of clients; None: whoever reaches the server may ask
    on_demand: int = ON_DEMAND  # versions that clients may have served too; 0: none
    prompt_bytes: int | None = None  # of the prompts' tensors in memory; None: no bound


@dataclass
class Service:
    """What the HTTP side works with."""

    served: Served
    batcher: Batcher[Row, Answered]
    follower: Follower
    on_demand: OnDemand
    metrics: Metrics
    access: Access | None
    options: Options
    draining: bool = False
    in_flight: int = 0  # requests being answered; changed, like the next, in the event loop only
    streams: int = 0  # those of them that write on

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self.follower.stop()
        self.batcher.close()


def canonical(reference: str) -> str:
    """The reference itself; a bare NAME is its champion."""
    return reference if "@" in reference else f"{reference}@champion"


def open_service(references: Sequence[str], options: Options, access: Access | None = None) -> Service:
    """The service of these prompts, each verified and its proof replayed; the follower has not started yet.

    Where registry or store cannot be reached, the last known good is loaded from the cache, and marked as stale.

    Raises:
        RegistryError: there is no such prompt, version or alias.
        ArtifactError: a prompt is damaged or does not answer as it was proven to.
        BaseModelError: the base is not the one that a prompt was minted on.
        PromptmintError: the prompts belong to different bases.
    """
    from pipelines.inference.engine import Engine

    asked = list(dict.fromkeys(canonical(reference) for reference in references))
    found = {reference: _find(reference) for reference in asked}
    _check_one_base({reference: each.folder for reference, (each, _) in found.items()})
    base = client.base_of(next(iter(found.values()))[0])
    served, metrics = Served(Engine(base, options.device, options.prompt_bytes), options.shadow), Metrics()
    for reference, (each, stale) in found.items():
        swapped(served, metrics, reference, each, stale)
    champions = [reference for reference in asked if options.shadow and reference.endswith("@champion")]
    shadows = [f"{each.removesuffix('champion')}challenger" for each in champions]
    follower = Follower(served, metrics, asked, [each for each in shadows if each not in asked], options.every_s)
    if shadows:
        follower.look()

    def answer(rows: Sequence[Row]) -> list[Answered]:
        answers = served.answer(rows)
        _count_shadows(metrics, answers)
        return answers

    batcher = Batcher(answer, options.batch_rows, options.waiting_rows, metrics.batch)
    metrics.waiting.set_function(lambda: batcher.waiting)
    on_demand = OnDemand(served, metrics, {*asked, *shadows}, options.on_demand)
    return Service(served, batcher, follower, on_demand, metrics, access, options)


def _find(reference: str) -> tuple[Found, str | None]:
    """What a reference stands for, and why that may be out of date."""
    try:
        return client.find(reference), None
    except client.UNREACHABLE as error:
        known = client.recall(reference)
        if known is None:
            raise
        return known, f"{type(error).__name__}: {error}"


def _check_one_base(folders: dict[str, Path]) -> None:
    from pipelines.prompts.artifact import read_prompt

    bases = {reference: read_prompt(folder).card["base"] for reference, folder in folders.items()}
    if len({base["digest"] for base in bases.values()}) > 1:
        which = ", ".join(f"{reference!r} on {base['name']!r} ({base['digest']})" for reference, base in bases.items())
        raise PromptmintError(f"One server holds one base, and these are of several: {which}. Start one for each base.")


def _count_shadows(metrics: Metrics, answers: Sequence[Answered]) -> None:
    """Count and log how the challengers of one batch compare with their champions."""
    compared: dict[tuple[str, int, int], Counter[bool]] = {}
    for each in answers:
        if each.challenger is not None:
            challenger, said = each.challenger
            agreed = said.label == each.answer.label
            metrics.shadows.labels(each.standing.name, str(agreed).lower()).inc()
            compared.setdefault((each.standing.name, each.standing.version, challenger.version), Counter())[agreed] += 1
    for (name, champion, challenger_version), counts in compared.items():
        tell(
            "shadow", prompt=name, champion=champion, challenger=challenger_version, rows=counts.total(),
            agreed=counts[True],
        )  # fmt: skip
