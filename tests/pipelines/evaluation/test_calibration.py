from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.calibration import BINS, calibration_error, calibration_noise
from pipelines.evaluation.metrics import summary
from pipelines.evaluation.scores import Scores


def scored(probability: list[float] | np.ndarray, right: list[bool] | np.ndarray) -> Scores:
    n = len(probability)
    prediction = np.where(np.asarray(right), 1, 0).astype(np.int32)
    ids = tuple(f"{number:06d}" for number in range(n))
    return Scores(ids, np.ones(n, np.int32), prediction, np.asarray(probability, np.float32))


def test_the_error_is_that_of_the_formula_by_hand() -> None:
    # 30 examples, two in a bin: the first says 0.5 and 0.51, the last 0.78 and 0.79; every bin holds one right answer.
    probability = np.linspace(0.5, 0.79, 30)
    right = [True, False] * 15
    expected = np.mean([abs(0.5 - (0.505 + 0.02 * place)) for place in range(15)])
    assert calibration_error(scored(probability, right)) == pytest.approx(expected, abs=1e-6)
    assert summary(scored(probability, right))["ece"] == pytest.approx(expected, abs=1e-6)


def test_equal_probabilities_count_together_whatever_their_order() -> None:
    for right in ([True] * 60 + [False] * 20, [False] * 20 + [True] * 60, [True, True, True, False] * 20):
        assert calibration_error(scored([0.75] * 80, right)) == pytest.approx(0)
        assert calibration_error(scored([1.0] * 80, right)) == pytest.approx(0.25)


def test_bins_have_equal_mass_whatever_the_probabilities() -> None:
    # All examples are sure; bins of equal width would be one single bin, whose error is 0.
    probability = np.linspace(0.98, 0.99, 150)
    right = np.ones(150, bool)
    right[:10] = False  # the ten least sure: one whole bin
    low = probability[:10].mean()
    others = (1 - probability[10:]).mean() * 140 / 150
    assert calibration_error(scored(probability, right)) == pytest.approx(low * 10 / 150 + others, abs=1e-6)


def test_order_and_few_examples_change_nothing() -> None:
    rng = np.random.default_rng(0)
    probability, right = rng.uniform(0.5, 1, 200), rng.random(200) < 0.7
    order = rng.permutation(200)
    error = calibration_error(scored(probability, right))
    assert calibration_error(scored(probability[order], right[order])) == pytest.approx(error)
    assert calibration_error(scored([0.75], [True])) == pytest.approx(0.25)


def test_a_perfectly_calibrated_model_shows_what_the_docs_say() -> None:
    rng = np.random.default_rng(0)
    errors = [calibration_error(scored(p, rng.random(2000) < p)) for p in rng.uniform(0.7, 0.9, size=(50, 2000))]
    assert np.mean(errors) == pytest.approx(0.029, abs=0.003)


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_noise_bounds_what_chance_adds(share: float) -> None:
    """Of a model whose true error is 0, the error shown is beyond the noise in one case of twenty at most."""
    rng = np.random.default_rng(1)
    made = [scored(np.full(450, share), rng.random(450) < share) for _ in range(300)]
    beyond = np.mean([calibration_error(s) > calibration_noise(s, 0.95, 1000, 0) for s in made])
    assert beyond <= 0.05 + 2 * 0.013
    assert calibration_noise(made[0], 0.95, 1000, 0) == calibration_noise(made[0], 0.95, 1000, 0)
    assert BINS == 15


def test_a_bin_that_was_always_right_is_not_certain() -> None:
    assert calibration_noise(scored([0.9] * 30, [True] * 30), 0.95, 1000, 0) > 0.1
