"""Weights of a mean, fitted on validation samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SMALLEST_STEP = 1 / 32  # of weight that moves from one model to another


def fit_weights(loss: Callable[[np.ndarray], float], n_models: int) -> np.ndarray:
    """Return weights on the simplex that make `loss` small: at most that of any single model.

    Starts at the best of the uniform weights and the single models, then moves weight from one
    model to another while that helps, in steps that are halved when none does.
    """
    starts = [np.full(n_models, 1.0 / n_models), *np.eye(n_models)]
    losses = [loss(start) for start in starts]
    best = min(range(len(starts)), key=losses.__getitem__)
    weights, least = starts[best], losses[best]
    step = 0.5
    while step >= SMALLEST_STEP and n_models > 1:
        moved = False
        for giver in range(n_models):
            for taker in range(n_models):
                amount = min(step, weights[giver])
                if giver == taker or amount <= 0:
                    continue
                trial = weights.copy()
                trial[giver] -= amount
                trial[taker] += amount
                value = loss(trial)
                if value < least:
                    weights, least, moved = trial, value, True
        if not moved:
            step /= 2
    return weights
