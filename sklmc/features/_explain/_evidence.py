"""What shows in two nets that do not average: layer by layer, in the order of units, in axes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd

from sklmc.alignment import inner_product
from sklmc.exceptions import StaleStatisticsWarning
from sklmc.features._layers import choose_layers
from sklmc.features._linear_connectivity import layerwise_linear_connectivity
from sklmc.features._nets_on_samples import Nets
from sklmc.features._preactivations import by_unit
from sklmc.features._variance import variance_ratio
from sklmc.models import ModelView, Moments
from sklmc.symmetry import PermutationSymmetry

N_RANDOM = 5  # random permutations that tell what chance gives
COLUMNS = ["layer", "variance_ratio", "one_minus_cosine", "one_minus_cosine_ab", "correlation"]


def layer_evidence(look: ModelView, given, aligned, data) -> pd.DataFrame:
    """Return one row per weight layer for a pair of states as given, and the same as aligned."""
    first = _evidence(look, given, data)
    same = all(x is y for x, y in zip(given, aligned))
    second = first if same else _evidence(look, aligned, data)
    return first.join(second.drop(columns="layer").add_suffix("_aligned"))


def _evidence(look: ModelView, states, data) -> pd.DataFrame:
    """Measure variance, linear connectivity and correlation halfway between two states."""
    a, b = (look.rebuild(state) for state in states)
    with warnings.catch_warnings():  # the midpoint as it is: stale statistics are a cause to name
        warnings.simplefilter("ignore", StaleStatisticsWarning)
        frame = variance_ratio(a, b, data).rename(columns={"ratio": "variance_ratio"})
        linear = layerwise_linear_connectivity(a, b, data, alphas=0.5, layers="weight")
    frame = frame.merge(linear, on=["layer", "alpha"])
    frame["correlation"] = frame.layer.map(unit_correlation(a, b, data))
    return frame[COLUMNS]


def unit_correlation(a, b, data) -> dict[str, float]:
    """Return, for every weight layer, the correlation of A's and B's units of one place.

    Units count by their standard deviations: ``sum cov / sum (std_a * std_b)``.
    """
    nets = Nets([a, b], data, "explain_barrier", ["model_a", "model_b"], 2)
    chosen = choose_layers(nets.layers, "weight", nets.caller)
    spreads = {layer.name: [Moments() for _ in range(3)] for layer in chosen}
    for first, second in nets.read(outputs=chosen):
        for layer in chosen:
            u, v = (by_unit(r.outputs[layer.name], layer.unit_axis) for r in (first, second))
            for spread, values in zip(spreads[layer.name], (u, v, u + v)):
                spread.add(values)
    found = {}
    for name, parts in spreads.items():
        var_a, var_b, var_sum = (part.variance() for part in parts)
        size = float((var_a.sqrt() * var_b.sqrt()).sum())
        covariance = float((var_sum - var_a - var_b).sum()) / 2.0
        found[name] = covariance / size if size > 0 else np.nan
    return found


def order_share(symmetry: PermutationSymmetry, a, b, moved) -> float:
    """Return how far B's own order is on the way from random orders (0) to the aligned one (1)."""
    orders = [
        symmetry.apply_state(b, symmetry.random_permutation(seed)) for seed in range(N_RANDOM)
    ]
    own, aligned, *drawn = (inner_product(a, state, symmetry) for state in (b, moved, *orders))
    gap = aligned - np.mean(drawn)
    return float((own - np.mean(drawn)) / gap) if gap > 0 else 1.0


def frozen_share(symmetry: PermutationSymmetry) -> float:
    """Return the share of weights' hidden axes (by number of weights) that nothing may permute.

    Axes that belong to the net's input or output are not hidden.
    """
    frozen = movable = 0.0
    shapes = {n: s for n, s in symmetry.shapes.items() if n not in symmetry.buffers and len(s) > 1}
    for axis in symmetry.frozen:
        if axis.tensor in shapes and axis.kind not in ("input of the net", "output of the net"):
            shape = shapes[axis.tensor]
            frozen += math.prod(shape) * axis.size / shape[axis.axis]
    names = {group.name for group in symmetry.groups}
    for tensor in shapes:
        for block in symmetry.blocks[tensor]:
            size = math.prod(axis.positions.size for axis in block.axes)
            movable += size * sum(bool(names & set(axis.factors)) for axis in block.axes)
    return frozen / (frozen + movable) if frozen + movable else 0.0
