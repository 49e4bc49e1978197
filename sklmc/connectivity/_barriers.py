"""Barriers of loss curves: how far a path rises above a baseline through its end points."""

from __future__ import annotations

import numpy as np

BASELINES = ("linear", "max", "mean")


def baseline_of(curves: np.ndarray, alphas: np.ndarray, baseline: str) -> np.ndarray:
    """Return the baseline of curves (..., n_alphas), of the same shape."""
    first, last = curves[..., :1], curves[..., -1:]
    if baseline == "linear":
        return (1.0 - alphas) * first + alphas * last
    ends = np.maximum(first, last) if baseline == "max" else 0.5 * (first + last)
    return np.broadcast_to(ends, curves.shape)


def barrier_of(curves: np.ndarray, alphas: np.ndarray, baseline: str) -> np.ndarray:
    """Return max over alpha of curve minus baseline, (...,); NaN where a value is NaN.

    At one of its ends no curve lies below its baseline, so that this is never negative.
    """
    with np.errstate(invalid="ignore"):  # inf - inf, 0 * inf
        excess = curves - baseline_of(curves, alphas, baseline)
    # rounding of the baseline itself must not make a flat path rise
    scale = np.maximum(np.abs(curves[..., :1]), np.abs(curves[..., -1:]))
    excess = np.where(np.abs(excess) <= 4 * np.finfo(float).eps * scale, 0.0, excess)
    return excess.max(axis=-1)


def midpoint_of(curves: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return the value at alpha = 1/2, which is always on the grid."""
    return curves[..., int(np.argmin(np.abs(alphas - 0.5)))]


def midpoint_barrier_of(curves: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Return the midpoint's value minus the mean of the ends; negative where the path dips."""
    return midpoint_of(curves, alphas) - 0.5 * (curves[..., 0] + curves[..., -1])


def alpha_grid(n_alphas: int) -> np.ndarray:
    """Return evenly spaced alphas with both ends; an even number gets the midpoint as well."""
    grid = np.linspace(0.0, 1.0, n_alphas)
    return grid if n_alphas % 2 else np.sort(np.append(grid, 0.5))
