"""The inverse temperature that makes logits fit labels best."""

from __future__ import annotations

import math

import torch

IN_SAMPLE_BOUND = math.log(1e6)  # of |log beta| when the plain minimiser is asked for
HELD_OUT_BOUND = math.log(100.0)  # of |log beta| when it must generalise
PRIOR_VARIANCE = 1.0  # of log beta, per sample, for the held-out kinds


def fit_inverse_temperature(
    logits: torch.Tensor, target: torch.Tensor, *, held_out: bool = False
) -> float:
    """Return the beta > 0 that minimises the mean cross entropy of ``softmax(beta * logits)``.

    Cross entropy is convex in beta; Newton's method runs on log beta inside a bracket that
    shrinks. With ``held_out=True``, log beta has a normal prior around 0, so that few or
    separable samples cannot make it run away, and narrower bounds.
    """
    z = logits.double()
    z = z - z.gather(1, target[:, None])  # (n, n_classes): cross entropy is logsumexp(beta * z)
    penalty = 1.0 / (PRIOR_VARIANCE * len(z)) if held_out else 0.0
    bound = HELD_OUT_BOUND if held_out else IN_SAMPLE_BOUND
    if not torch.isfinite(z).all() or bool((z == 0).all()):
        return 1.0

    def derivatives(t: float) -> tuple[float, float]:
        beta = math.exp(t)
        p = torch.softmax(beta * z, dim=1)
        mean = (p * z).sum(dim=1)
        slope = float(mean.mean())
        curvature = float(((p * z.square()).sum(dim=1) - mean.square()).mean())
        return beta * slope + penalty * t, beta * slope + beta**2 * curvature + penalty

    first, _ = derivatives(0.0)
    if first == 0.0:
        return 1.0
    low, high = (0.0, bound) if first < 0 else (-bound, 0.0)
    end, _ = derivatives(high if first < 0 else low)
    if (first < 0 and end <= 0) or (first > 0 and end >= 0):
        return math.exp(high if first < 0 else low)
    t = 0.0
    for _ in range(200):
        gradient, second = derivatives(t)
        if gradient < 0:
            low = t
        else:
            high = t
        step = t - gradient / second if second > 0 else math.inf
        new = step if low < step < high else 0.5 * (low + high)
        if abs(new - t) <= 1e-12 * max(1.0, abs(new)):
            return math.exp(new)
        t = new
    return math.exp(t)
