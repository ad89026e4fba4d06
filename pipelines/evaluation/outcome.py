"""What a gate found: its verdict, its numbers and its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["passed", "inconclusive", "refused"]
Numbers = int | float


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome. A comparison: points of accuracy, prompt minus the other, and what they must be above.

    A comparison also counts the examples that only the other answered rightly (`lost`) and those that only the prompt
    did (`won`), with McNemar's exact p-value of these two counts, which asks whether there is any difference, and
    `claim_p_value`, which asks whether the difference is above the threshold: small where that is proven.

    A guard has an estimate and a threshold as fractions, a budget in its own units, both without an interval; a gate
    with nothing to compare has no numbers at all.
    """

    name: str
    verdict: Outcome
    estimate: Numbers | None
    low: float | None
    high: float | None
    threshold: Numbers | None
    reason: str
    lost: int | None = None
    won: int | None = None
    p_value: float | None = None
    claim_p_value: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON, fractions rounded to four digits."""
        told = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return told | {"p_value": self.p_value, "claim_p_value": self.claim_p_value}  # one of a millionth is not 0
