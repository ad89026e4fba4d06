"""A warm start: the champion's numbers where a prompt's training begins, unless the recipe says no or it may not be.

A prompt is never started from one that was tuned on the very same examples: it starts from what that one started from.
So a changed gate mints the same prompt again, and no run chases its own tail. Nor is it started from one that has seen
an example of the test split, itself or in what it started from. Whoever may not start warm starts as `prompt.init`
says, and the run's record tells why:

    prompt, tree    digests of the prompt it starts from, and of the folder in the store that holds it; None: cold
    version         under which that one is registered
    seen            digest of every text that it and those before it have seen (data/seen.py)
    why_not         why it is cold; empty where it is warm

See docs/decisions/0032-what-a-run-takes-over-is-named.md and 0040-a-retraining-starts-warm.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.seen import seen_again, seen_by
from pipelines.errors import NotInStore
from pipelines.promotion.champion import Champion
from pipelines.recipe import Recipe, Template
from pipelines.store.store import Store
from pipelines.store.trees import load_tree

LEARNT_FROM = ("train", "validation")
SHAPING = ("method", "tokens", "layer", "hidden", "rank", "positions")  # settings that decide what numbers there are
NOBODY = "nobody was champion"


@dataclass(frozen=True)
class Start:
    """A minted prompt to start from: its digest, its folder and its card; `origin` is what a record says of it."""

    prompt: str
    folder: Path
    card: dict[str, Any]
    origin: dict[str, Any]


@dataclass(frozen=True)
class Begun:
    """What a run starts from, or why it starts cold."""

    start: Start | None
    why_not: str = ""

    def told(self, recipe: Recipe) -> dict[str, Any]:
        """What the record of a run says of its start, with the settings that it ended with."""
        why = self.why_not if self.start is None else misfit(self.start.card, recipe)
        cold = {"prompt": None, "tree": None, "version": None, "seen": None}
        return {**(cold if why or self.start is None else self.start.origin), "why_not": why}


def begin(
    store: Store, champion: Champion, base: str, labels: tuple[str, ...], splits: Mapping[str, str], cache: Path
) -> Begun:
    """What a run may start from.

    Args:
        store: holds the champion's prompt, and what it has seen.
        champion: as this run finds it.
        base: the digest of the base that the run tunes on.
        labels: of the recipe.
        splits: the trees of the run's splits.
        cache: for prompts and splits.
    """
    record = champion.record
    if champion.version is None or record is None:
        return Begun(None, NOBODY if champion.version is None else "the store has no record of the champion's run")
    who = f"the champion (version {champion.version})"
    if record["base_digest"] != base:
        return Begun(None, f"{who} was tuned on another base")
    if record["labels"] != list(labels):
        return Begun(None, f"{who} answers other labels")
    learnt_from, earlier = record["data"]["split_trees"], record.get("start") or {}
    try:
        if all(learnt_from[split] == splits[split] for split in LEARNT_FROM):
            if not earlier.get("prompt"):
                return Begun(None, f"{who} was tuned on these very examples, and started cold")
            origin = {key: earlier[key] for key in ("prompt", "tree", "version", "seen")}
        else:
            prompt = record["trained"]["prompt"]
            seen = seen_by(store, [learnt_from[split] for split in LEARNT_FROM], cache, earlier.get("seen"))
            origin = {"prompt": prompt["prompt_digest"], "tree": prompt["tree"], "version": champion.version}
            origin |= {"seen": seen}
        if again := seen_again(store, origin["seen"], splits["test"], cache):
            return Begun(None, f"{again:,} of the test examples are among those that {who} learnt from")
        return Begun(load_start(store, origin, cache))
    except NotInStore as error:
        return Begun(None, f"the store has lost what {who} was or learnt from ({error})")


def load_start(store: Store, origin: Mapping[str, Any], cache: Path) -> Start:
    """The prompt that a record or a provenance names as a start. Raises `NotInStore`."""
    folder = load_tree(store, origin["tree"], cache)
    card = json.loads((folder / "prompt.json").read_bytes())
    return Start(origin["prompt"], folder, card, dict(origin))


def misfit(card: Mapping[str, Any], recipe: Recipe) -> str:
    """Why a prompt's numbers are not those that a recipe trains; empty where they are."""
    asked = recipe.prompt.model_dump(mode="json")
    for key in SHAPING:
        if card["settings"].get(key) != asked.get(key):
            return f"the champion has {key} = {card['settings'].get(key)!r}, the recipe {asked.get(key)!r}"
    if Template(**card["template"]).marked != recipe.template.marked:
        return "the champion stands elsewhere in the text"
    if card["settings"].get("half", "encoder") != recipe.prompt.half:
        return "the champion is read by the other half of the base"
    words = None if recipe.head.words is None else list(recipe.head.words)
    if (card["head"]["kind"], card["head"]["words"]) != (recipe.head.kind, words):
        return "the champion has another head"
    return ""
