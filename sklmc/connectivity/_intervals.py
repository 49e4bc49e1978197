"""Medians over pairs of models, with intervals that resample models."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class MedianInterval(NamedTuple):
    """A median over pairs and the ends of its confidence interval.

    Parameters
    ----------
    estimate : float
        The median of all pairs.
    low, high : float
        Ends of the interval, in the same units.

    See Also
    --------
    sklmc.PairwiseScore.interval : Makes it.

    References
    ----------
    .. [1] Efron and Tibshirani, "An introduction to the bootstrap", 1993.

    Examples
    --------
    >>> from sklmc.connectivity import MedianInterval
    >>> interval = MedianInterval(estimate=0.3, low=0.2, high=0.5)
    >>> interval.low <= interval.estimate <= interval.high
    True
    """

    estimate: float
    low: float
    high: float


def median_interval(
    values: np.ndarray, n_models: int, confidence: float, n_resamples: int, rng
) -> MedianInterval:
    """Return the median of one value for each pair i < j with its percentile interval.

    A resample holds model i ``count[i]`` times, hence pair (i, j) ``count[i] * count[j]`` times;
    pairs of a model with itself are left out, since their barrier is zero by definition.
    """
    if np.isnan(values).any():
        return MedianInterval(np.nan, np.nan, np.nan)
    first, second = np.triu_indices(n_models, 1)
    counts = rng.multinomial(n_models, np.full(n_models, 1.0 / n_models), size=n_resamples)
    weights = counts[:, first] * counts[:, second]  # (n_resamples, n_pairs)
    weights = weights[weights.sum(axis=1) > 0]  # one model n times has no pair
    edge = 0.5 * (1.0 - confidence)
    medians = weighted_medians(values, weights) if len(weights) else np.array([np.nan])
    low, high = np.quantile(medians, [edge, 1.0 - edge])
    return MedianInterval(float(np.median(values)), float(low), float(high))


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, for each row of integer weights, the median of values repeated so many times."""
    order = np.argsort(values)
    ordered = values[order]
    total = np.cumsum(weights[:, order], axis=1)
    half = total[:, -1:] / 2
    lower = (total < half).sum(axis=1)
    upper = (total <= half).sum(axis=1)
    return 0.5 * (ordered[lower] + ordered[upper])
