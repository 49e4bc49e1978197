"""What the layers show of two nets that do not average."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklmc.features._layers import choose_layers
from sklmc.features._linear_connectivity import layerwise_linear_connectivity
from sklmc.features._nets_on_samples import Nets
from sklmc.features._preactivations import by_unit
from sklmc.features._variance import variance_ratio
from sklmc.models import ModelView, Moments

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
