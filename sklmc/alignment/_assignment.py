"""Linear assignment, prepared so that scipy's solver has little to do."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def assign(gain: np.ndarray) -> np.ndarray:
    """Return the permutations that maximise ``sum_i gain[..., i, perm[..., i]]``.

    Row and column means do not move the optimum; without them, a gain dominated by one rank
    (uncentred moments) sends the solver on long augmenting paths.
    """
    size = gain.shape[-1]
    flat = np.asarray(gain, dtype=np.float64).reshape(-1, size, size)
    perms = np.empty(flat.shape[:2], dtype=np.int64)
    for index, matrix in enumerate(flat):
        cost = matrix.mean(axis=0) - matrix  # negated here: maximize=True would copy it once more
        cost += matrix.mean(axis=1, keepdims=True)
        perms[index] = linear_sum_assignment(cost)[1]
    return perms.reshape(gain.shape[:-1])


def assigned_value(gain: np.ndarray, perms: np.ndarray) -> np.ndarray:
    """Return ``sum_i gain[..., i, perm[..., i]]`` for each leading index."""
    return np.take_along_axis(gain, perms[..., None], axis=-1)[..., 0].sum(axis=-1)
