"""REPAIR: the hidden units of a merged net get back the scale that they had in its end points."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layer import Norm, WeightLayer
from sklmc.merging._repairs._layer_rows import lone_moments, norm_changes, output_moments
from sklmc.merging._repairs._layers import find_layers, replace_tensors
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.models import Inputs, ModelView, Moments, State

TINY = 1e-7  # a standard deviation below this part of the goal's is that of a constant unit


def renormalize_state(
    look: ModelView, state: State, ends: EndPoints, samples: SampleSet
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return a renormalised copy of a merged state, and the weights that were left averaged.

    In data-flow order, each hidden unit's pre-activation (behind its batch norm, where it has
    one) is moved to the weighted mean of the end points' means and standard deviations, by
    scaling its weights and shifting its bias. Units that are constant stay as they are.
    """
    inputs = samples.inputs
    layers, left = find_layers(look, state, inputs.first(2))
    hidden = [layer for layer in layers if isinstance(layer, Norm) or not layer.is_output]
    goals = _goals(look, ends, hidden, inputs)
    new = dict(state)
    for layer in hidden:
        if isinstance(layer, Norm):
            changes = norm_changes(layer, lone_moments(look, new, layer, inputs))
        else:
            (moments,) = output_moments(look, new, inputs, [(layer, layer.call)])
            changes = _rescale(new, layer, moments, *goals[layer])
        replace_tensors(look, new, changes)
    return new, left


def _goals(
    look: ModelView,
    ends: EndPoints,
    hidden: Sequence[WeightLayer | Norm],
    inputs: Inputs,
) -> dict[WeightLayer, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation of each layer's units: the end points' weighted mean."""
    layers = [layer for layer in hidden if isinstance(layer, WeightLayer)]
    goals: dict[WeightLayer, tuple] = dict.fromkeys(layers, (0.0, 0.0))
    places = [(layer, layer.target) for layer in layers]
    for _, state, weight in ends.used() if layers else ():
        for layer, own in zip(layers, output_moments(look, state, inputs, places)):
            mean, std = goals[layer]
            goals[layer] = mean + weight * own.mean, std + weight * own.variance(1).sqrt()
    return goals


def _rescale(
    state: State, layer: WeightLayer, moments: Moments, mean: torch.Tensor, std: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the tensors of one layer, changed so that its units have this mean and spread."""
    variance = moments.variance(correction=1)
    own = variance.sqrt()
    varies = own > TINY * std.clamp_min(own.max() * TINY)
    if layer.norm is not None:
        changes = {layer.norm.mean: moments.mean, layer.norm.variance: variance}
        if layer.norm.scale is not None:
            averaged = state[layer.norm.scale].double()
            size = std * (variance + layer.norm.eps).sqrt() / own.clamp_min(1e-300)
            # a standard deviation has no sign: that of the averaged gain stays (0 stays 0)
            changes[layer.norm.scale] = torch.where(varies, averaged.sign() * size, averaged)
            changes[layer.norm.shift] = torch.where(varies, mean, state[layer.norm.shift].double())
        return changes
    ratio = torch.where(varies, std / own.clamp_min(1e-300), 1.0)
    varies, ratio, mean, own_mean = (one.cpu() for one in (varies, ratio, mean, moments.mean))
    matrix, bias = layer.matrix(state), layer.biases(state)
    if bias is not None:
        bias = torch.where(varies, mean - ratio * (own_mean - bias), bias)
    return layer.changes(state, matrix * ratio.reshape(*matrix.shape[:2], 1), bias)
