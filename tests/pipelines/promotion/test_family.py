"""Families are held to what they promise: how many of many promotions are due to luck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import false_discovery_control

from pipelines.errors import RecipeError
from pipelines.evaluation.exact import claim_p_value
from pipelines.promotion.family import Control, Decision, adjusted, decide, members_of, weakest_claim
from pipelines.promotion.ledger import promote, register
from pipelines.recipe import Recipe
from pipelines.runs import finish
from pipelines.store.store import Store

P_VALUES = st.lists(st.floats(1e-12, 1), min_size=1, max_size=30)


@given(P_VALUES)
def test_the_correction_for_the_share_is_that_of_scipy(p_values: list[float]) -> None:
    assert adjusted(p_values, "fdr") == pytest.approx(false_discovery_control(p_values).tolist())


@given(P_VALUES)
def test_the_correction_for_a_single_one_steps_down_from_bonferroni(p_values: list[float]) -> None:
    level, m = 0.05, len(p_values)
    left = sorted(p_values)
    while left and left[0] * len(left) <= level:
        left.pop(0)
    found = adjusted(p_values, "fwer")
    assert sum(p <= level for p in found) == m - len(left)
    rounding = 1e-12
    stricter = (a >= b - rounding for a, b in zip(found, adjusted(p_values, "fdr"), strict=True))
    assert all(stricter), "the stricter of the two"


NIGHTS, RECIPES = 800, 20


def nights(bad: int) -> np.ndarray:
    """P-values of many nights, [nights, recipes]: the first `bad` prompts lie on the margin, the others are equal.

    With 2,000 test examples, 10 % of them discordant, and a margin of 2 points.
    """
    rng = np.random.default_rng(4)
    known: dict[tuple[int, int], float] = {}

    def p_value(lost: int, won: int) -> float:
        if (lost, won) not in known:
            known[lost, won] = claim_p_value(lost, won, 2000, -0.02)
        return known[lost, won]

    worse = rng.multinomial(2000, [0.06, 0.04, 0.9], size=(NIGHTS, bad))
    equal = rng.multinomial(2000, [0.05, 0.05, 0.9], size=(NIGHTS, RECIPES - bad))
    drawn = np.concatenate([worse, equal], axis=1)
    return np.array([[p_value(int(lost), int(won)) for lost, won, _ in night] for night in drawn])


@pytest.mark.parametrize("bad", [20, 10])
def test_false_promotions_are_as_rare_as_promised(bad: int) -> None:
    p = nights(bad)
    alone = (p[:, :bad] <= 0.05).sum(axis=1)
    assert 0.8 * bad * 0.05 < alone.mean() < 1.1 * bad * 0.05, "each on its own: one of twenty every night"

    def share(control: Control) -> tuple[float, float, float]:
        proven = np.array([adjusted(night.tolist(), control) for night in p]) <= 0.05
        false = proven[:, :bad].sum(axis=1)
        power = proven[:, bad:].mean() if bad < RECIPES else 1.0
        return float((false / np.maximum(1, proven.sum(axis=1))).mean()), float((false > 0).mean()), float(power)

    noise = 2 * (0.05 * 0.95 / NIGHTS) ** 0.5
    assert share("fdr")[0] <= 0.05 + noise
    assert share("fwer")[1] <= 0.05 + noise
    if bad < RECIPES:
        assert share("fdr")[2] > share("fwer")[2] > 0.2, (
            "and good ones are promoted, more of them where a share may fail"
        )
        assert share("fdr")[2] > 0.6


def recipe(name: str, confidence: float = 0.95, control: str = "fdr", family: str = "nightly") -> Recipe:
    return Recipe.model_validate(
        {
            "name": name,
            "base": {"name": "none", "sources": ["file://none"]},
            "data": {"path": "x.csv", "labels": ["a", "b"]},
            "prompt": {"method": "p-tuning-v2", "tokens": 4, "rate": 1e-2},
            "baselines": {"lora": {"rate": 1e-2}},
            "gates": {"non_inferior": [{"to": "lora", "margin": 2}], "confidence": confidence},
            "promotion": {"policy": "family", "family": family, "control": control},
        }
    )


@pytest.fixture
def ran(store: Store) -> Callable[..., None]:
    """A run of a recipe has ended: its version is registered, its record kept."""

    def make(name: str, *claims: float | None, version: int = 1, verdict: str = "passed") -> None:
        run = f"{version:064x}"
        finish(store, {"recipe": name, "run_key": run, "gates": [{"claim_p_value": p} for p in claims]})
        register(store, name, version, prompt_digest="b" * 64, verdict=verdict, run_key=run, who="flow", why="")

    return make


def told(decision: Decision) -> dict[str, bool]:
    return {member.name: member.promoted for member in decision.members}


def test_the_weakest_claim_counts_and_whoever_has_none_yet_makes_it_harder(
    store: Store, ran: Callable[..., None]
) -> None:
    ran("a", 0.001, 0.02, None)
    assert told(decide(store, store, "nightly", [recipe("a")])) == {"a": True}
    decision = decide(store, store, "nightly", [recipe("c"), recipe("b"), recipe("a")])
    assert told(decision) == {"a": False, "b": False, "c": False}
    (first, second, _) = decision.members
    assert (first.version, first.p_value, first.adjusted) == (1, 0.02, pytest.approx(0.06))
    assert first.why == (
        "not proven among the 3 of the family 'nightly' at 5 %: the weakest of its claims has p = 0.02, 0.06 after "
        "Benjamini-Hochberg"
    )
    assert (second.version, second.p_value, second.why) == (None, 1.0, "nothing waits")
    ran("b", 0.03)
    ran("c", 0.04)
    assert told(decide(store, store, "nightly", [recipe("c"), recipe("b"), recipe("a")])) == dict.fromkeys("abc", True)


def test_the_strictest_member_speaks_for_all(store: Store, ran: Callable[..., None]) -> None:
    ran("a", 0.03)
    ran("b", 0.04)
    assert told(decide(store, store, "nightly", [recipe("a"), recipe("b")])) == {"a": True, "b": True}
    strict = decide(store, store, "nightly", [recipe("a"), recipe("b", control="fwer")])
    assert strict.control == "fwer" and told(strict) == {"a": False, "b": False}
    sure = decide(store, store, "nightly", [recipe("a"), recipe("b", confidence=0.99)])
    assert sure.level == pytest.approx(0.01) and told(sure) == {"a": False, "b": False}


def test_only_what_passed_and_waits_is_judged(store: Store, ran: Callable[..., None]) -> None:
    ran("a", 1e-6)
    promote(store, "a", 1, who="ann", why="")
    ran("b", 1e-6, verdict="inconclusive")
    ran("c", None)
    found = {each.name: each for each in decide(store, store, "nightly", [recipe(name) for name in "abc"]).members}
    assert not any(each.promoted for each in found.values())
    assert [found[name].why for name in "ab"] == ["nothing waits"] * 2
    assert found["c"].version == 1 and "a person decides" in found["c"].why


def test_a_family_is_the_recipes_that_name_it() -> None:
    recipes = [recipe("a"), recipe("b", family="weekly"), recipe("c")]
    assert [each.name for each in members_of("nightly", recipes)] == ["a", "c"]
    with pytest.raises(RecipeError, match=r"promotion.family = 'dayly'. Families .*: 'nightly', 'weekly'"):
        members_of("dayly", recipes)


@pytest.mark.parametrize(
    "promotion", [{"policy": "family"}, {"policy": "manual", "family": "x"}, {"policy": "family", "family": "A b"}]
)
def test_a_family_has_a_name(promotion: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(recipe("a").model_dump() | {"promotion": promotion})


def test_a_family_claims_something_and_is_in_no_other_recipes_digest() -> None:
    settings = recipe("a").model_dump()
    with pytest.raises(ValidationError, match="needs a gate that claims something"):
        Recipe.model_validate(settings | {"gates": {"max_ece": 0.1}})
    alone = Recipe.model_validate(settings | {"promotion": {"policy": "automatic"}})
    assert alone.promotion.model_dump() == {"policy": "automatic"}


def test_records_of_before_claim_nothing() -> None:
    assert weakest_claim({"gates": [{"name": "non-inferior to lora", "p_value": 0.3}]}) is None
    assert weakest_claim({}) is None
