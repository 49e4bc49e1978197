"""The inverse temperature that makes logits fit labels best."""

from __future__ import annotations

import itertools
import math

import torch

IN_SAMPLE_BOUND = math.log(1e6)  # of |log beta| when the plain minimiser is asked for
HELD_OUT_BOUND = math.log(1e3)  # of |log beta| when it must generalise
# Samples with labels spread evenly over the classes that are imagined when beta must generalise.
# Chosen on planted logits and nets on breast cancer, where 1/4 and 1 are hardly worse; digits and
# moons confirm it. A normal prior of log beta pulls over-confident nets towards 1 for nothing.
IMAGINED = 0.5
MAX_STEPS = 200
TOLERANCE = 1e-10
GROUP_ELEMENTS = 2**18  # logits worked on at once, so that they stay in cache


def fit_inverse_temperature(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    held_out: bool = False,
    weights: torch.Tensor | None = None,
) -> float:
    """Return the beta > 0 that minimises the mean cross entropy of ``softmax(beta * logits)``.

    `logits` is (n, n_classes). See `fit_inverse_temperatures`.
    """
    sets = logits.T[None]
    return float(fit_inverse_temperatures(sets, target, held_out=held_out, weights=weights)[0])


def fit_inverse_temperatures(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    held_out: bool = False,
    start: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return one beta > 0 for each of k sets of logits (k, n_classes, n), as float64 (k,).

    Cross entropy is convex in beta; Newton's method runs on log beta inside a bracket that
    shrinks. With ``held_out=True`` the n samples are joined by half a sample that looks like
    their mean and has labels spread evenly over the classes, as in add-one-half smoothing, and the
    bounds are narrower: separable samples cannot make it run away, and the weight of what is
    imagined falls as 1 / n. This too is convex, and undoes any scale of the logits. Where no beta
    is better than another (or logits are not finite) it is 1.

    Means over samples are weighted by `weights` (n,), all positive, where there are any; n is then
    the number of equal weights that average as well, ``sum(w)**2 / sum(w**2)``.
    """
    if weights is not None:
        weights = weights / weights.sum()
    _, n_classes, n = logits.shape
    step = max(1, GROUP_ELEMENTS // max(1, n_classes * n))
    starts = itertools.repeat(None) if start is None else start.split(step)
    groups = zip(logits.split(step), starts)
    return torch.cat(
        [_fit_group(some.double(), target, held_out, at, weights) for some, at in groups]
    )


def scaled_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """Return the cross entropy (k, n) of ``softmax(beta * logits)``, logits (k, n_classes, n)."""
    z = _relative_to_target(logits.double(), target) * beta[:, None, None]
    return torch.logsumexp(z, dim=1)


def _relative_to_target(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Subtract the target's logit: cross entropy is then logsumexp over the classes."""
    return logits - logits.gather(1, target.expand(len(logits), 1, -1))


def _fit_group(logits, target, held_out: bool, start, weights) -> torch.Tensor:
    """Run the bracketed Newton iteration on a group of sets of logits at once."""
    z = _relative_to_target(logits, target)
    k, _, n = z.shape

    def average(values: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=1) if weights is None else values @ weights

    if weights is not None:
        n = 1.0 / float(weights.square().sum())
    imagined = IMAGINED / n if held_out else 0.0  # weight beside the mean over samples
    even = imagined * (z.mean(dim=(1, 2)) if weights is None else average(z.mean(dim=1)))
    bound = HELD_OUT_BOUND if held_out else IN_SAMPLE_BOUND

    def derivatives(t, z, even) -> tuple[torch.Tensor, torch.Tensor]:
        beta = t.exp()
        p = torch.softmax(beta[:, None, None] * z, dim=1)
        weighted = p * z
        mean = weighted.sum(dim=1)
        slope = beta * ((1.0 + imagined) * average(mean) - even)
        variance = (1.0 + imagined) * average((weighted * z).sum(dim=1) - mean.square())
        return slope, slope + beta.square() * variance

    t = torch.zeros(k, dtype=torch.float64)
    usable = torch.isfinite(z).flatten(1).all(dim=1) & (z != 0).flatten(1).any(dim=1)
    gradient = torch.zeros_like(t)
    gradient[usable], _ = derivatives(t[usable], z[usable], even[usable])
    edge = torch.where(gradient < 0, bound, -bound).double()
    active = usable & (gradient != 0)
    at_edge, _ = derivatives(edge[active], z[active], even[active])
    # no sign change inside the bounds: the minimum lies at or beyond the edge
    beyond = at_edge * edge[active].sign() <= 0
    index = active.nonzero()[:, 0]
    t[index[beyond]] = edge[index[beyond]]
    index = index[~beyond]
    low = torch.minimum(edge, torch.zeros_like(edge))
    high = torch.maximum(edge, torch.zeros_like(edge))
    if start is not None:
        t[index] = start[index].log().clamp(low[index], high[index])
    for _ in range(MAX_STEPS):
        if len(index) == 0:
            break
        now = t[index]
        first, second = derivatives(now, z[index], even[index])
        low[index] = torch.where(first < 0, now, low[index])
        high[index] = torch.where(first < 0, high[index], now)
        new = now - first / second
        inside = (second > 0) & (low[index] <= new) & (new <= high[index])
        new = torch.where(inside, new, 0.5 * (low[index] + high[index]))
        t[index] = new
        moved = (new - now).abs() > TOLERANCE * new.abs().clamp(min=1.0)
        index = index[moved]
    return t.exp()
