"""Medians over pairs and their intervals."""

import numpy as np
import pytest

from sklmc.connectivity._intervals import (
    median_interval,
    small_sample_stretch,
    weighted_medians,
)


def pair_values(n_models, rng, spread=1.0):
    """Barriers that are the sum of an effect of each model: pairs that share models."""
    effects = rng.normal(scale=spread, size=n_models)
    first, second = np.triu_indices(n_models, 1)
    return effects[first] + effects[second]


def test_weighted_median_is_that_of_repeated_values():
    rng = np.random.default_rng(0)
    values = rng.normal(size=7)
    weights = rng.integers(0, 4, size=(200, 7))
    weights = weights[weights.sum(axis=1) > 0]
    wanted = [np.median(np.repeat(values, row)) for row in weights]
    np.testing.assert_allclose(weighted_medians(values, weights), wanted)


def test_estimate_is_the_median_and_lies_inside():
    rng = np.random.default_rng(0)
    values = pair_values(12, rng)
    found = median_interval(values, 12, 0.9, 500, np.random.RandomState(0))
    assert found.estimate == np.median(values)
    assert found.low <= found.estimate <= found.high


def test_more_confidence_is_wider_and_the_seed_repeats():
    values = pair_values(12, np.random.default_rng(1))
    narrow, wide = (
        median_interval(values, 12, c, 500, np.random.RandomState(0)) for c in (0.5, 0.95)
    )
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide == median_interval(values, 12, 0.95, 500, np.random.RandomState(0))


def test_coverage_where_pairs_share_models():
    """Resampling pairs as if they were independent would cover the truth far less often."""
    rng = np.random.default_rng(0)
    hits = pair_hits = 0
    for _ in range(150):
        values = pair_values(20, rng)
        found = median_interval(values, 20, 0.9, 200, np.random.RandomState(0))
        hits += found.low <= 0.0 <= found.high
        naive = np.median(rng.choice(values, size=(200, len(values))), axis=1)
        low, high = np.quantile(naive, [0.05, 0.95])
        pair_hits += low <= 0.0 <= high
    assert 0.82 <= hits / 150 <= 1.0
    assert pair_hits / 150 < 0.7


@pytest.mark.parametrize("n_models, least", [(5, 0.86), (10, 0.92)])
def test_coverage_with_few_models_whose_effects_are_all_there_is(n_models, least):
    """Nothing shares more than this. Percentiles alone cover .81 and .89; the truth is 0."""
    rng = np.random.default_rng(0)
    n_repeats = 600  # a standard error of .011
    hits = 0
    for _ in range(n_repeats):
        found = median_interval(
            pair_values(n_models, rng), n_models, 0.95, 200, np.random.RandomState(0)
        )
        hits += found.low <= 0.0 <= found.high
    assert hits / n_repeats >= least


def test_stretch_is_student_s_and_fades():
    ten = 2.262 / 1.960 * (10 / 9) ** 0.5
    assert small_sample_stretch(10, 0.95) == pytest.approx(ten, rel=1e-3)
    assert small_sample_stretch(2000, 0.95) == pytest.approx(1.0, abs=2e-3)


def test_interval_does_not_go_where_no_value_can_be():
    values = pair_values(6, np.random.default_rng(0)) ** 2
    low = median_interval(values, 6, 0.99, 200, np.random.RandomState(0)).low
    floor = median_interval(values, 6, 0.99, 200, np.random.RandomState(0), lowest=0.0).low
    assert low < 0.0 == floor


def test_infinite_values_stay_infinite():
    found = median_interval(np.full(6, np.inf), 4, 0.95, 100, np.random.RandomState(0))
    assert found == (np.inf, np.inf, np.inf)


def test_nan_and_two_models():
    values = np.array([0.1, np.nan, 0.2])
    assert np.isnan(median_interval(values, 3, 0.9, 100, np.random.RandomState(0))).all()
    two = median_interval(np.array([0.3]), 2, 0.9, 100, np.random.RandomState(0))
    assert two == (0.3, pytest.approx(0.3), pytest.approx(0.3))
