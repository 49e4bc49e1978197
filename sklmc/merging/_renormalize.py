"""REPAIR: the hidden units of a merged net get back the scale that they had in its end points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sklmc.merging._site_rows import lone_statistics, output_moments
from sklmc.merging._weight_sites import Norm, Site, find_sites, replace_tensors
from sklmc.models import Inputs, ModelView, Moments, State

TINY = 1e-7  # a standard deviation below this part of the goal's is that of a constant unit


def renormalize_state(
    look: ModelView, state: State, endpoints: Sequence[State], inputs: Inputs, weights: np.ndarray
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return a renormalised copy of a merged state, and the weights that were left averaged.

    In data-flow order, each hidden unit's pre-activation (behind its batch norm, where it has
    one) is moved to the weighted mean of the end points' means and standard deviations, by
    scaling its weights and shifting its bias. Units that are constant stay as they are.
    """
    sites, left = find_sites(look, state, inputs.first(2))
    hidden = [site for site in sites if isinstance(site, Norm) or not site.is_output]
    goals = _goals(look, endpoints, weights, hidden, inputs)
    new = dict(state)
    for site in hidden:
        if isinstance(site, Norm):
            changes = lone_statistics(look, new, site, inputs)
        else:
            moments = output_moments(look, new, inputs, {site.call: site.kind})[site.call]
            changes = _rescale(new, site, moments, *goals[site.target])
        replace_tensors(look, new, changes)
    return new, left


def _goals(
    look: ModelView,
    endpoints: Sequence[State],
    weights: np.ndarray,
    hidden: Sequence[Site | Norm],
    inputs: Inputs,
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation of each layer's units: the end points' weighted mean."""
    kinds = {site.target: site.kind for site in hidden if isinstance(site, Site)}
    goals: dict[int, tuple] = dict.fromkeys(kinds, (0.0, 0.0))
    for state, weight in zip(endpoints, weights, strict=True) if kinds else ():
        if weight == 0:
            continue
        for call, own in output_moments(look, state, inputs, kinds).items():
            mean, std = goals[call]
            goals[call] = mean + weight * own.mean, std + weight * own.variance(1).sqrt()
    return goals


def _rescale(
    state: State, site: Site, moments: Moments, mean: torch.Tensor, std: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the tensors of one layer, changed so that its units have this mean and spread."""
    variance = moments.variance(correction=1)
    own = variance.sqrt()
    varies = own > TINY * std.clamp_min(own.max() * TINY)
    if site.norm is not None:
        changes = {site.norm.mean: moments.mean, site.norm.variance: variance}
        if site.norm.scale is not None:
            averaged = state[site.norm.scale].double()
            size = std * (variance + site.norm.eps).sqrt() / own.clamp_min(1e-300)
            # a standard deviation has no sign: that of the averaged gain stays (0 stays 0)
            changes[site.norm.scale] = torch.where(varies, averaged.sign() * size, averaged)
            changes[site.norm.shift] = torch.where(varies, mean, state[site.norm.shift].double())
        return changes
    ratio = torch.where(varies, std / own.clamp_min(1e-300), 1.0)
    weight = state[site.weight].double()
    changes = {site.weight: weight * ratio.reshape(-1, *[1] * (weight.ndim - 1))}
    if site.bias is not None:
        bias = state[site.bias].double()
        changes[site.bias] = torch.where(varies, mean - ratio * (moments.mean - bias), bias)
    return changes
