"""Weights fitted on the simplex."""

import numpy as np
import pytest

from sklmc.merging._averager import SMALLEST_STEP, fit_weights


def test_minimum_inside_the_simplex_is_found():
    goal = np.array([0.5, 0.125, 0.375])
    weights = fit_weights(lambda w: float(np.square(w - goal).sum()), 3)
    np.testing.assert_allclose(weights, goal, atol=SMALLEST_STEP)


@pytest.mark.parametrize("n_models", [1, 2, 4])
def test_corner_is_found_exactly(n_models):
    weights = fit_weights(lambda w: -float(w[-1]), n_models)
    assert weights.tolist() == [0.0] * (n_models - 1) + [1.0]


def test_uniform_weights_win_a_tie():
    assert fit_weights(lambda w: 1.0, 4).tolist() == [0.25] * 4


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_uniform_or_a_single_model(seed):
    """However rugged the loss is."""
    rng = np.random.default_rng(seed)
    scale = rng.normal(size=(4, 4))

    def loss(weights):
        return float(np.sin(40 * scale @ weights).sum())

    weights = fit_weights(loss, 4)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0
    for other in (np.full(4, 0.25), *np.eye(4)):
        assert loss(weights) <= loss(other)
