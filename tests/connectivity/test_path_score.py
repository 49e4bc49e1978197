"""The score of one path."""

import numpy as np
import pytest

from sklmc import PathScore

ALPHAS = np.array([0.0, 0.5, 1.0])


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
