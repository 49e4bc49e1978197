"""Barriers of curves under each baseline."""

import numpy as np
import pytest

from sklmc.connectivity._barriers import (
    BASELINES,
    alpha_grid,
    barrier_of,
    midpoint_barrier_of,
    midpoint_of,
)

ALPHAS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
CURVE = np.array([0.1, 0.2, 0.6, 0.5, 0.3])


def test_each_baseline_by_hand():
    assert barrier_of(CURVE, ALPHAS, "linear") == pytest.approx(0.4)
    assert barrier_of(CURVE, ALPHAS, "mean") == pytest.approx(0.4)
    assert barrier_of(CURVE, ALPHAS, "max") == pytest.approx(0.3)
    assert midpoint_of(CURVE, ALPHAS) == 0.6
    assert midpoint_barrier_of(CURVE, ALPHAS) == pytest.approx(0.4)


def test_never_negative_and_epsilon_is_the_smallest():
    curves = np.random.default_rng(0).exponential(size=(200, 5))
    values = {baseline: barrier_of(curves, ALPHAS, baseline) for baseline in BASELINES}
    assert all((value >= 0).all() for value in values.values())
    assert (values["max"] <= values["linear"]).all()
    assert (values["max"] <= values["mean"]).all()


def test_turning_a_path_round_changes_nothing():
    curves = np.random.default_rng(1).exponential(size=(50, 5))
    for baseline in BASELINES:
        np.testing.assert_allclose(
            barrier_of(curves, ALPHAS, baseline), barrier_of(curves[:, ::-1], ALPHAS, baseline)
        )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-9, 1e9])
def test_flat_path_has_no_barrier_to_the_last_bit(value):
    alphas = alpha_grid(31)
    for baseline in BASELINES:
        assert barrier_of(np.full(31, value), alphas, baseline) == 0.0


def test_dip_has_negative_midpoint_barrier_and_barrier_zero():
    curve = np.array([0.5, 0.3, 0.2, 0.3, 0.5])
    assert barrier_of(curve, ALPHAS, "linear") == 0.0
    assert midpoint_barrier_of(curve, ALPHAS) == pytest.approx(-0.3)


def test_nan_is_not_dropped():
    curve = CURVE.copy()
    curve[1] = np.nan
    assert np.isnan(barrier_of(curve, ALPHAS, "linear"))
    curve[1] = np.inf
    assert barrier_of(curve, ALPHAS, "max") == np.inf


@pytest.mark.parametrize("n_alphas", [2, 3, 10, 11])
def test_grid_has_both_ends_and_the_midpoint(n_alphas):
    grid = alpha_grid(n_alphas)
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    assert 0.5 in grid
    assert (np.diff(grid) > 0).all()
    assert len(grid) == n_alphas + (n_alphas % 2 == 0)
