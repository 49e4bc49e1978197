"""Medians over pairs of models, with intervals that resample models."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


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
    values: np.ndarray,
    n_models: int,
    confidence: float,
    n_resamples: int,
    rng,
    lowest: float = -math.inf,
) -> MedianInterval:
    """Return the median of one value for each pair i < j with its interval.

    A resample holds model i ``count[i]`` times, hence pair (i, j) ``count[i] * count[j]`` times;
    pairs of a model with itself are left out, since their barrier is zero by definition. The
    percentiles' distances from the median are stretched by `small_sample_stretch`. No value can
    lie below `lowest`, so that the interval does not either.
    """
    if np.isnan(values).any():
        return MedianInterval(np.nan, np.nan, np.nan)
    first, second = np.triu_indices(n_models, 1)
    counts = rng.multinomial(n_models, np.full(n_models, 1.0 / n_models), size=n_resamples)
    weights = counts[:, first] * counts[:, second]  # (n_resamples, n_pairs)
    weights = weights[weights.sum(axis=1) > 0]  # one model n times has no pair
    edge = 0.5 * (1.0 - confidence)
    medians = weighted_medians(values, weights) if len(weights) else np.array([np.nan])
    estimate = np.median(values)
    ends = np.quantile(medians, [edge, 1.0 - edge], method="inverted_cdf")  # inf stays
    if np.isfinite(estimate):
        ends = estimate + small_sample_stretch(n_models, confidence) * (ends - estimate)
    low, high = np.maximum(ends, lowest)
    return MedianInterval(float(estimate), float(low), float(high))


def small_sample_stretch(n_models: int, confidence: float) -> float:
    """Return by how much resampling n models makes intervals too narrow.

    The spread of n resampled models is sqrt((n - 1) / n) of what an unbiased estimate has, and
    as that spread is itself estimated, Student's t with n - 1 degrees of freedom takes the place
    of the normal distribution.
    """
    edge = 0.5 * (1.0 + confidence)
    wider = stats.t.ppf(edge, n_models - 1) / stats.norm.ppf(edge)
    return float(wider * math.sqrt(n_models / (n_models - 1)))


def weighted_medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, for each row of integer weights, the median of values repeated so many times."""
    order = np.argsort(values)
    ordered = values[order]
    total = np.cumsum(weights[:, order], axis=1)
    half = total[:, -1:] / 2
    lower = (total < half).sum(axis=1)
    upper = (total <= half).sum(axis=1)
    return 0.5 * (ordered[lower] + ordered[upper])
