"""The score of one path, and the barriers of curves under each baseline."""

import numpy as np
import pytest

from sklmc import PathScore
from sklmc.connectivity._path_score import (
    BASELINES,
    alpha_grid,
    barrier_of,
    midpoint_of,
)

ALPHAS = np.array([0.0, 0.5, 1.0])
FIVE = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
CURVE = np.array([0.1, 0.2, 0.6, 0.5, 0.3])


def score(**changes):
    values = {
        "alphas": ALPHAS,
        "loss": np.array([0.1, 0.6, 0.3]),
        "error": np.array([0.0, 0.5, 0.1]),
        "calibrated_loss": np.array([0.1, 0.2, 0.3]),
        "inverse_temperature": np.array([1.0, 4.0, 1.0]),
    }
    return PathScore(**{**values, **changes})


def test_barriers_in_every_metric():
    assert score().barrier == pytest.approx(0.4)
    assert score().barrier_for(baseline="max") == pytest.approx(0.3) == score().epsilon
    assert score().barrier_for(metric="error") == pytest.approx(0.45)
    assert score().barrier_for(metric="calibrated_loss") == 0.0
    assert score(metric="error", baseline="max").barrier == pytest.approx(0.4)
    assert score(metric="error", loss=ALPHAS).calibrated_barrier == 0.0
    assert score(calibrated_loss=None).calibrated_barrier is None


def test_extremes_and_midpoint():
    path = score()
    assert (path.minimum, path.maximum, path.midpoint()) == (0.1, 0.6, 0.6)
    assert path.midpoint("error") == 0.5
    assert path.midpoint_barrier == pytest.approx(0.4)


def test_connected_within_epsilon():
    assert score().is_connected(0.31)
    assert not score().is_connected(0.29)
    assert not score(loss=np.array([0.1, np.nan, 0.1])).is_connected(10.0)


def test_frame_has_one_row_per_alpha():
    frame = score().to_frame()
    assert list(frame) == ["alpha", "loss", "error", "calibrated_loss", "inverse_temperature"]
    assert frame["loss"].tolist() == [0.1, 0.6, 0.3]
    bare = score(calibrated_loss=None, inverse_temperature=None).to_frame()
    assert list(bare) == ["alpha", "loss", "error"]


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match=r"'baseline' must be one of .* Did you mean 'linear'"):
        score().barrier_for(baseline="linaer")
    with pytest.raises(ValueError, match="'metric' must be one of"):
        score().barrier_for(metric="accuracy")
    with pytest.raises(ValueError, match="there is no 'calibrated_loss'; set 'calibration'"):
        score(calibrated_loss=None).barrier_for(metric="calibrated_loss")


# Barriers of curves


def test_each_baseline_by_hand():
    assert barrier_of(CURVE, FIVE, "linear") == pytest.approx(0.4)
    assert barrier_of(CURVE, FIVE, "mean") == pytest.approx(0.4)
    assert barrier_of(CURVE, FIVE, "max") == pytest.approx(0.3)
    assert midpoint_of(CURVE, FIVE) == 0.6
    assert PathScore(FIVE, CURVE, CURVE).midpoint_barrier == pytest.approx(0.4)


def test_barriers_are_never_negative_and_epsilon_is_the_smallest():
    curves = np.random.default_rng(0).exponential(size=(200, 5))
    values = {baseline: barrier_of(curves, FIVE, baseline) for baseline in BASELINES}
    assert all((value >= 0).all() for value in values.values())
    assert (values["max"] <= values["linear"]).all()
    assert (values["max"] <= values["mean"]).all()


def test_turning_a_path_round_changes_nothing():
    curves = np.random.default_rng(1).exponential(size=(50, 5))
    for baseline in BASELINES:
        np.testing.assert_allclose(
            barrier_of(curves, FIVE, baseline), barrier_of(curves[:, ::-1], FIVE, baseline)
        )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-9, 1e9])
def test_flat_path_has_no_barrier_to_the_last_bit(value):
    alphas = alpha_grid(31)
    for baseline in BASELINES:
        assert barrier_of(np.full(31, value), alphas, baseline) == 0.0


def test_dip_has_negative_midpoint_barrier_and_barrier_zero():
    curve = np.array([0.5, 0.3, 0.2, 0.3, 0.5])
    assert barrier_of(curve, FIVE, "linear") == 0.0
    assert PathScore(FIVE, curve, curve).midpoint_barrier == pytest.approx(-0.3)


def test_nan_on_a_curve_is_not_dropped():
    curve = CURVE.copy()
    curve[1] = np.nan
    assert np.isnan(barrier_of(curve, FIVE, "linear"))
    curve[1] = np.inf
    assert barrier_of(curve, FIVE, "max") == np.inf


@pytest.mark.parametrize("n_alphas", [2, 3, 10, 11])
def test_alphas_have_both_ends_and_the_midpoint(n_alphas):
    grid = alpha_grid(n_alphas)
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    assert 0.5 in grid
    assert (np.diff(grid) > 0).all()
    assert len(grid) == n_alphas + (n_alphas % 2 == 0)
