"""The layer that gives the logits, fitted to probabilities: an ensemble averages these."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._steps import Rows, Step, mean_weights, read_rows
from sklmc.models import Inputs, ModelView, State, as_logits

RIDGE = 1e-3  # of the mean squared input, as in least squares
MOST_STEPS = 200
FLAT = 1e-7  # largest slope at the end, in nats per step of a standard deviation
MOST_VALUES = 2**27  # of the rows kept, in float64


def fit_head(
    look: ModelView, state: State, step: Step, ends: EndPoints, target: Rows, inputs: Inputs
) -> dict[str, torch.Tensor]:
    """Fit the head to probabilities (rows, block by block); return the tensors that it changes."""
    head = step.head
    xs, ps, kept = [], [], 0
    for (x, *_), p in zip(read_rows(look, state, step, inputs), target):
        if kept * x.shape[2] > MOST_VALUES:
            break
        xs.append(x[:, 0])
        ps.append(p.reshape(len(x), -1))
        kept += len(x)
    (start,) = mean_weights(head, ends)
    shift = head.biases(ends.mean())
    weight, shift = fit_probabilities(
        torch.cat(xs).double().numpy(), torch.cat(ps).double().numpy(), start.numpy(),
        None if shift is None else shift.numpy(),
    )  # fmt: skip
    return head.changes(
        state, torch.from_numpy(weight), None if shift is None else torch.from_numpy(shift)
    )


def fit_probabilities(
    h: np.ndarray, p: np.ndarray, start: np.ndarray, shift: np.ndarray | None, ridge: float = RIDGE
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return weights and shift whose logits give probabilities as near to `p` as can be.

    Minimises the mean over rows of ``KL(p || softmax(W h + b))`` and half of
    ``ridge * mean(h^2) * |W - start|^2``, which is convex. `h` is (n_rows, n_inputs), `p`
    (n_rows, n_classes), `start` (n_logits, n_inputs); one logit z stands for the two [0, z].
    """
    n_rows, n_logits = len(h), len(start)
    if not np.isfinite(h).all():
        return start, shift
    strength = ridge * float(np.mean(h * h))
    first = start if shift is None else np.concatenate([start, shift[:, None]], axis=1)
    h = h if shift is None else np.concatenate([h, np.ones((n_rows, 1))], axis=1)
    held = np.zeros(first.shape[1])
    held[: start.shape[1]] = 1.0  # the shift is free
    back = _rounding(h, strength)
    rounded, logits = h @ back, h @ first.T

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        step = flat.reshape(first.shape)
        given = as_logits(torch.from_numpy(logits + rounded @ step.T))
        logs = torch.log_softmax(given, dim=1).numpy()
        away = held * (step @ back.T)
        value = -np.sum(p * logs) / n_rows + 0.5 * strength * np.sum(away * away)
        gap = np.exp(logs) - p  # of all logits, the last n_logits of which are free
        gradient = gap[:, -n_logits:].T @ rounded / n_rows + strength * (away @ back)
        return float(value), gradient.ravel()

    options = {"maxiter": MOST_STEPS, "ftol": 0.0, "gtol": FLAT}
    nothing = np.zeros(first.size)
    found = minimize(objective, nothing, jac=True, method="L-BFGS-B", options=options)
    found = first + found.x.reshape(first.shape) @ back.T
    if not np.isfinite(found).all():
        return start, shift
    return (found, None) if shift is None else (found[:, :-1].copy(), found[:, -1].copy())


def _rounding(h: np.ndarray, strength: float) -> np.ndarray:
    """Return the matrix that makes inputs uncorrelated, so that all directions are as steep."""
    gram = h.T @ h / len(h)
    limits = np.finfo(np.float64)
    size = max(strength, limits.eps * np.trace(gram), limits.tiny)
    factor = np.linalg.cholesky(gram + size * np.eye(len(gram)))
    return solve_triangular(factor, np.eye(len(gram)), lower=True).T
