"""The data of a run held against those of the champion's run, each pair of them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.drift.report import changed_words, report
from pipelines.data.drift.sampling import LEARNT_FROM, Sample, sample
from pipelines.digests import canonical_json
from pipelines.errors import NotInStore
from pipelines.memo import Stage, once
from pipelines.promotion.champion import Champion
from pipelines.recipe import Drift
from pipelines.store.store import Store
from pipelines.store.trees import save_bytes

STAGE = Stage("drift", 1)
NOBODY = "there is no champion yet, so there is nothing that the data could have moved from"
LABELS_OR_TEXTS = "and this recipe are not of one kind: one answers with labels, the other writes texts"

Embed = Callable[[Sample, Sample], NDArray[np.float32]]  # hidden states [N, d] of both, those from before first


def against_champion(
    store: Store,
    champion: Champion,
    split_trees: Mapping[str, str],
    labels: Sequence[str],
    settings: Drift,
    seed: int,
    read_by: Mapping[str, Any],
    embed: Embed,
    cache: Path,
) -> dict[str, Any]:
    """What is written into a run's record: the report, and `{then, against, moved, why_not, words}`.

    `against` is `{version, snapshot, split_trees}`, or None where there is nothing to compare with, for the reason that
    `why_not` gives. `words` is the digest of the words that changed, kept in the store like the texts they come from.

    Args:
        store: holds both runs' splits; keeps the report and the words.
        champion: as this run finds it.
        split_trees: of this run, `{split: tree}`.
        labels: of the recipe; none where it writes texts, and their shift is not measured.
        settings: what the recipe asks for.
        seed: of the samples and the resamples.
        read_by: what decides the hidden states: the base's digest and the template, as JSON.
        embed: gives the hidden states; called where the recipe asks for an embedding distance.
        cache: for the splits.
    """
    record, version = champion.record, champion.version
    if version is None or record is None:
        return _nothing(settings, NOBODY if version is None else champion.lost)
    if bool(record["labels"]) != bool(labels):
        return _nothing(settings, f"the champion (version {version}) {LABELS_OR_TEXTS}")
    known = record["data"]["split_trees"]
    trees = [{split: every[split] for split in LEARNT_FROM} for every in (known, split_trees)]
    renamed = set(record["labels"]) != set(labels)

    def compute() -> dict[str, Any]:
        before, after = (sample(store, each, settings.sample, seed, cache) for each in trees)
        states = embed(before, after) if settings.embedded else None
        found = report(before, after, settings, seed, states, labels=bool(labels) and not renamed)
        return {**found, "words": save_bytes(store, canonical_json(changed_words(before, after)))}

    inputs = {
        "before": trees[0], "after": trees[1], "seed": seed, "renamed": renamed,
        "settings": settings.model_dump(mode="json", exclude={"then"}), **(read_by if settings.embedded else {}),
    }  # fmt: skip
    try:
        value = once(store, STAGE, inputs, compute).value
    except NotInStore as error:
        return _nothing(settings, f"the data of the champion (version {version}) are no longer in the store ({error})")
    told = {"why_not": champion.of_others(labels) if renamed else ""}
    return {"then": settings.then, "against": _against(champion, trees[0]), **told, **value}


def refusal(found: Mapping[str, Any]) -> str | None:
    """Why a run must stop before it is trained, where its recipe says so; None where it may go on."""
    if found["then"] != "refuse" or not found["moved"]:
        return None
    reasons = "; ".join(f"{each['title']} {each['reason']}" for each in found["measures"] if each["moved"])
    return (
        f"the data have moved from those of the champion (version {found['against']['version']}): {reasons}. "
        "Set drift.then = 'note' or raise the threshold to train on them all the same"
    )


def _against(champion: Champion, trees: Mapping[str, str]) -> dict[str, Any]:
    assert champion.record is not None
    return {"version": champion.version, "snapshot": champion.record["data_digest"], "split_trees": dict(trees)}


def _nothing(settings: Drift, why_not: str) -> dict[str, Any]:
    return {"then": settings.then, "against": None, "why_not": why_not, "measures": [], "moved": []}
