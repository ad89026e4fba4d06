"""The report on drift: every measure with its bounds and its threshold, what moved, and in words how.

It goes into the run's record, and so names labels and numbers but no words: these are texts (see docs/decisions/0023),
and are kept apart, as `changed_words`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.drift import measures
from pipelines.data.drift.intervals import Bounds, bounds, difference_bounds
from pipelines.data.drift.sampling import Sample
from pipelines.recipe import Drift

NAMES = {
    "labels": "labels",
    "length": "length of the texts",
    "vocabulary": "vocabulary",
    "unseen": "unseen words",
    "embedding": "embeddings",
}
BARS = 12  # of a histogram of lengths
TOLD = 3  # labels that a sentence names
MOST = 12  # words of a kind that are kept


def report(
    before: Sample,
    after: Sample,
    settings: Drift,
    seed: int,
    states: NDArray[np.float32] | None = None,
    labels: bool = True,
) -> dict[str, Any]:
    """`{measures, moved, labels, lengths, rows}` of two samples, as JSON.

    Args:
        before: of the champion's examples.
        after: of this run's.
        settings: thresholds, confidence and resamples.
        seed: of the resamples.
        states: hidden states [N, d] of at most `settings.embedded` texts of either side, those from before first;
            None: no embedding distance.
        labels: whether both sides have labels, and the same ones; else their shift is not measured.
    """
    words = measures.count_words([*before.texts, *after.texts], len(before))
    lengths = np.array([len(text) for text in (*before.texts, *after.texts)], np.int64)
    sides = len(before), len(after)
    embedded = min(sides[0], settings.embedded), min(sides[1], settings.embedded)
    distances = {"length": measures.length_shift(lengths), "vocabulary": measures.vocabulary_shift(words)}
    if labels:
        distances = {"labels": measures.label_shift([*before.labels, *after.labels]), **distances}
    number = len(distances) + 1 + (states is not None)
    level = 1 - (1 - settings.confidence) / number  # shared, so that all of them together are wrong no more often
    how: dict[str, Any] = {"level": level, "resamples": settings.resamples, "seed": seed}
    found = bounds(distances, *sides, **how)
    found["unseen"] = difference_bounds(measures.unseen_words(words), *sides, **how)
    if states is not None:
        found |= bounds({"embedding": measures.embedding_shift(states)}, *embedded, **how)
    shares = label_shares(before.labels, after.labels)
    told = [_measure(name, each, getattr(settings, name)) for name, each in found.items()]
    for each in told:
        each["reason"] = _reason(each, shares, lengths[: sides[0]], lengths[sides[0] :])
    return {
        "measures": told,
        "moved": [each["name"] for each in told if each["moved"]],
        "labels": shares,
        "lengths": histogram(lengths[: sides[0]], lengths[sides[0] :]),
        "rows": {"before": before.of, "after": after.of, "sampled": list(sides), "embedded": list(embedded)},
    }


def _measure(name: str, found: Bounds, threshold: float) -> dict[str, Any]:
    numbers = {key: round(getattr(found, key), 4) for key in ("estimate", "low", "high", "chance")}
    return {"name": name, "title": NAMES[name], **numbers, "threshold": threshold, "moved": found.low > threshold}


def _reason(
    found: Mapping[str, Any],
    shares: Mapping[str, Sequence[float]],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
) -> str:
    """What a measure says: the distance, whether it is beyond its threshold, and what changed most."""
    distance = f"{found['estimate']:.3f} (from {found['low']:.3f} to {found['high']:.3f})"
    limit, by_chance = f"the threshold of {found['threshold']:g}", f"where chance alone makes {found['chance']:.3f}"
    if found["moved"]:
        proven = f"moved: {distance} is proven to be beyond {limit}"
    elif found["estimate"] - found["chance"] > found["threshold"]:
        proven = f"not proven to have moved: {distance}, {by_chance}, may but need not be beyond {limit}"
    else:
        proven = f"not moved: {distance}, {by_chance}, is within {limit}"
    if found["name"] == "labels":
        changes = sorted(shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:TOLD]
        return f"{proven}; most changed: " + ", ".join(
            f"{label!r} from {100 * old:.1f} to {100 * new:.1f} %" for label, (old, new) in changes
        )
    if found["name"] == "length":
        return f"{proven}; the median is {np.median(before):,.0f} characters before, {np.median(after):,.0f} now"
    return proven


def label_shares(before: Sequence[str], after: Sequence[str]) -> dict[str, list[float]]:
    """`{label: [share before, share after]}`."""
    names = sorted({*before, *after})
    return {
        name: [round(sum(label == name for label in side) / len(side), 4) for side in (before, after)] for name in names
    }


def histogram(before: NDArray[np.int64], after: NDArray[np.int64]) -> dict[str, list[float]]:
    """`{edges, before, after}`: shares of the texts between edges in characters; the last bar has all longer ones."""
    both = np.concatenate([before, after])
    top = max(int(np.quantile(both, 0.98)), 1)
    edges = np.linspace(0, top, BARS + 1)
    shares = [np.histogram(np.minimum(side, top), edges)[0] / len(side) for side in (before, after)]
    return {"edges": [round(float(edge), 1) for edge in edges]} | {
        name: [round(float(share), 4) for share in side] for name, side in zip(("before", "after"), shares, strict=True)
    }


def changed_words(before: Sample, after: Sample) -> dict[str, list[list[Any]]]:
    """`{more, less, new}`: words with their shares before and after, those that weigh most in the divergence first.

    They are texts: keep them where texts are kept.
    """
    texts = [*before.texts, *after.texts]
    words = measures.count_words(texts, len(before))
    old, new = (
        measures.frequencies(np.array([weights], np.float32), words)[0]
        for weights in (
            [1.0] * len(before) + [0.0] * len(after),
            [0.0] * len(before) + [1.0] * len(after),
        )
    )
    weight = measures.divergence(old[None], new[None])[0]
    named = [column for column in np.argsort(-weight, kind="stable").tolist() if words.names[column]]

    def told(columns: list[int]) -> list[list[Any]]:
        return [[words.names[at], round(float(old[at]), 6), round(float(new[at]), 6)] for at in columns[:MOST]]

    return {
        "more": told([at for at in named if new[at] > old[at] > 0]),
        "less": told([at for at in named if new[at] < old[at]]),
        "new": told([at for at in named if old[at] == 0]),
    }
