"""REPAIR: the hidden units of a merged net get back the scale that they had in its end points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sklmc.merging._site_probes import MomentProbe, fold_blocks, lone_statistics
from sklmc.merging._weight_sites import Norm, Site, all_names, find_sites, watch
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
    layers = [site for site in hidden if isinstance(site, Site)]
    used = [(end, float(w)) for end, w in zip(endpoints, weights, strict=True) if w > 0]
    goals = _goals(look, used, layers, inputs)
    names = all_names(look)
    new = dict(state)
    for site in hidden:
        if isinstance(site, Norm):
            changes = lone_statistics(look, new, site, inputs)
        else:
            moments = Moments()
            for _, args in fold_blocks(inputs):
                watch(look, args, new, {site.call: MomentProbe(moments, site.kind)})
            changes = _rescale(new, site, moments, *goals[site.call])
        for name, tensor in changes.items():
            for same in names[name]:
                new[same] = tensor.to(state[name].dtype).to(state[name].device)
    return new, left


def _goals(
    look: ModelView,
    endpoints: Sequence[tuple[State, float]],
    layers: Sequence[Site],
    inputs: Inputs,
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation of each layer's units: the end points' weighted mean."""
    goals: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for state, weight in endpoints if layers else ():
        moments = {site.target: Moments() for site in layers}
        for _, args in fold_blocks(inputs):
            probes = {site.target: MomentProbe(moments[site.target], site.kind) for site in layers}
            watch(look, args, state, probes)
        for site in layers:
            own = moments[site.target]
            mean, std = goals.get(site.call, (0.0, 0.0))
            goals[site.call] = (
                mean + weight * own.mean,
                std + weight * own.variance(correction=1).sqrt(),
            )
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
