"""Scores at the edges: a bound that is met, rounding, a pair that is not known."""

import numpy as np
import pytest

from sklmc.connectivity import PathScore
from sklmc.connectivity._intervals import median_interval

ALPHAS = np.linspace(0.0, 1.0, 11)


def score(loss, **curves):
    return PathScore(alphas=ALPHAS, loss=loss, error=np.zeros(11), metric="loss", **curves)


def test_path_that_rises_by_the_bound_exactly_is_connected():
    hill = score(np.where(ALPHAS == 0.5, 1.0, 0.25))
    assert hill.epsilon == 0.75
    assert hill.is_connected(0.75)
    assert not hill.is_connected(np.nextafter(0.75, 0.0))


def test_rounding_beside_the_larger_end_is_no_barrier():
    """The smaller end says nothing of the digits that the line has in its middle."""
    first, last = 1e-20, 0.3
    line = first + ALPHAS * (last - first)
    line[0], line[-1] = first, last
    line += np.spacing(line) * (ALPHAS * (1 - ALPHAS) > 0)  # one digit up, inside
    assert (line > (1 - ALPHAS) * first + ALPHAS * last).any()
    assert score(line).barrier_for(baseline="linear") == 0.0
    assert score(line[::-1]).barrier_for(baseline="linear") == 0.0


@pytest.mark.parametrize("name", ["loss", "error", "calibrated_loss", "inverse_temperature"])
def test_curve_that_is_not_as_long_as_alphas_is_refused(name):
    curves = {"loss": np.zeros(11), "error": np.zeros(11), name: np.zeros(10)}
    with pytest.raises(ValueError, match=f"PathScore: '{name}'"):
        PathScore(alphas=ALPHAS, **curves)


def test_one_pair_that_is_not_known_leaves_no_interval():
    values = np.arange(45.0)
    values[7] = np.nan
    found = median_interval(values, 10, 0.9, 100, np.random.RandomState(0))
    assert np.isnan(found).all()
