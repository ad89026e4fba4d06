"""Power: before anything is trained, how often the test set would let a prompt pass that is as good as its opponent.

It needs one assumption: on which share of the test examples exactly one of the two is right (`gates.disagreement`). The
gates of a finished run say how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.evaluation.comparisons import POINTS, claim_of
from pipelines.evaluation.statistics import chance, enough
from pipelines.recipe import Gates

ENOUGH = 0.8  # a test set with less is said to be small

Foreseen = Mapping[str, Any]


def foresee(gates: Gates, rows: int) -> list[dict[str, Any]]:
    """One entry per non-inferiority gate, as plain JSON: its `power` with this many test rows, and what it rests on.

    `rows_needed` is the number of test rows with which the power would be `wanted`: 0.8, or `gates.min_power` where
    that is more. The two models differ by nothing on average, so the variance of a difference is that of
    `disagreement` times +-100 points. A gate against the champion counts whether or not somebody reigns: power must
    follow from the recipe and the data alone, as the run's key does. Of written texts nothing is foreseen: how much two
    of them differ by a metric is not known before they are written.
    """
    if gates.metric is not None:
        return []
    wanted = max(ENOUGH, gates.min_power)
    variance = POINTS**2 * gates.disagreement
    return [
        {
            "gate": claim_of(gate).name,
            "power": round(chance(gate.margin, variance, rows, gates.confidence, largest=POINTS), 4),
            "wanted": wanted,
            "rows": rows,
            "rows_needed": enough(gate.margin, variance, gates.confidence, wanted, largest=POINTS),
            "margin": gate.margin,
            "disagreement": gates.disagreement,
        }
        for gate in gates.non_inferior
    ]


def low(foreseen: Sequence[Foreseen]) -> list[Foreseen]:
    """The gates that the test set is small for."""
    return [each for each in foreseen if each["power"] < each["wanted"]]


def refusal(gates: Gates, foreseen: Sequence[Foreseen]) -> str | None:
    """Why nothing should be trained, in one sentence; None where every gate has the power that the recipe asks for."""
    weak = [each for each in foreseen if each["power"] < gates.min_power]
    if not weak:
        return None
    found = "; ".join(in_words(each) for each in weak)
    return f"the test set is too small for gates.min_power = {gates.min_power:g}: {found}"


def in_words(foreseen: Foreseen) -> str:
    """One gate's power, as a person reads it."""
    return (
        f"{foreseen['gate']}: with {foreseen['rows']:,} test examples an equally good prompt passes "
        f"{_percent(foreseen['power'])} of the time, were {_percent(foreseen['disagreement'])} of them answered "
        f"rightly by only one of the two; about {foreseen['rows_needed']:,} would make it "
        f"{_percent(foreseen['wanted'])}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
