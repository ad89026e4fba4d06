"""When a training is lost: its loss is no number any more, or stays far above where it began.

It is looked for in the curve, which a checkpoint holds, so that a training that was interrupted is lost at the same
step. While the loss is far up no checkpoint is written: those that are there are from before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.errors import DivergedError
from pipelines.recipe import Method
from pipelines.training.checkpoint import Keeper

Curve = Sequence[tuple[int, float]]  # (step, loss)
BEGINNING, STAYED = 5, 10  # points of the curve
FAR = 10.0  # times the loss of the beginning
LEAST = 1.0  # nats: a champion's loss, where a warm start begins, says little about what is far


def is_far_up(curve: Curve) -> bool:
    """Whether the newest loss is far above where the training began."""
    return len(curve) > BEGINNING and curve[-1][1] > _limit(curve)


def check_number(name: str, value: float, step: int, method: Method, keeper: Keeper) -> None:
    """Let only numbers pass. Raises `DivergedError`."""
    if not math.isfinite(value):
        raise _diverged(f"The {name} became {value!r}", step, method, keeper)


def check_course(curve: Curve, method: Method, keeper: Keeper) -> None:
    """Let a training pass whose loss was not far up at each of the last points. Raises `DivergedError`."""
    newest = curve[-STAYED:]
    if len(curve) >= BEGINNING + STAYED and min(loss for _, loss in newest) > _limit(curve):
        what = (
            f"The loss has been above {_limit(curve):.3g} since step {newest[0][0]}, and began at {_began(curve):.3g};"
        )
        raise _diverged(f"{what} it is {newest[-1][1]:.3g}", newest[-1][0], method, keeper)


def _began(curve: Curve) -> float:
    return min(loss for _, loss in curve[:BEGINNING])  # with a high rate already the second step may be far up


def _limit(curve: Curve) -> float:
    return FAR * max(LEAST, _began(curve))


def _diverged(what: str, step: int, method: Method, keeper: Keeper) -> DivergedError:
    newest = keeper.newest()
    kept = f"The last good checkpoint is {str(newest)!r}." if newest else "There is no checkpoint."
    return DivergedError(
        f"{what} at step {step} with rate {method.rate!r}. Lower the method's rate or set training.precision = 'fp32'. "
        f"{kept}",
        step,
    )
