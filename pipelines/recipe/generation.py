"""What of a recipe fits texts that are to be written, and what belongs to classes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import listed
from .gates import OF_CLASSES

if TYPE_CHECKING:
    from .recipe import Recipe


def misfit_of_generation(recipe: Recipe) -> str:
    """Why a recipe's tables do not fit together, where one of them speaks of generation; empty where they do."""
    generates = recipe.head.generates
    if generates != (recipe.data.target is not None):
        return (
            "head.kind = 'generation' and data.target, the column of the texts to be written, belong together, without "
            f"data.labels: got head.kind = {recipe.head.kind!r} and data.target = {recipe.data.target!r}"
        )
    if generates != (recipe.gates.metric is not None):
        return (
            "gates.metric ('bleu', 'rouge_l', 'token_f1' or 'exact_match') belongs to head.kind = 'generation', which "
            f"needs it: got head.kind = {recipe.head.kind!r} and gates.metric = {recipe.gates.metric!r}"
        )
    if not generates:
        return ""
    if of_classes := recipe.gates.changed_keys(OF_CLASSES):
        return (
            f"gates has {listed(of_classes)}, which judge answers that are right or wrong; head.kind = 'generation' "
            "has gates.non_inferior, superior and budgets"
        )
    if recipe.gates.budgets.added_latency_ms is not None:
        return (
            "gates.budgets.added_latency_ms measures the answer to a text in one pass, and a text is written in many: "
            "leave it out with head.kind = 'generation'"
        )
    if recipe.promotion.family is not None:
        return (
            "promotion.family decides by exact tests of right and wrong answers, which head.kind = 'generation' has "
            "not: set promotion.policy = 'automatic' or 'manual'"
        )
    if recipe.drift is not None and recipe.drift.changed_keys(["labels"]):
        return "drift.labels is of labels, and head.kind = 'generation' has none: leave it out of [drift]"
    if recipe.prompt.init == "labels":
        return "prompt.init = 'labels' starts from label words, and head.kind = 'generation' has none: choose another"
    return ""
