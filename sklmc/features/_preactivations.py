"""How strongly each hidden unit is driven."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from sklmc.features._layers import choose_layers
from sklmc.features._nets_on_samples import Nets
from sklmc.models import Moments


def preactivation_scale(model, X, *, layers="relu"):
    """Measure the root mean square of every ReLU input, unit by unit.

    In wide nets trained with weight decay most units are hardly driven at all [1]_: a histogram
    of `scale` has its mass at the left, and two nets use different units.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator or torch.nn.Module
        A net.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples.
    layers : {"relu", "all", "feature", "weight"} or list of str, default="relu"
        Layers whose inputs are measured.

    Returns
    -------
    DataFrame
        One row per layer and unit: `layer`, `unit`, `scale` (not negative, in the units of the
        pre-activation). Of images and sequences the mean runs over positions as well.

    Raises
    ------
    ValueError
        If the net has no such layer or X does not fit.

    See Also
    --------
    stable_rank : The same concentration, seen in the weights.
    variance_ratio : How much of the variance a merged net keeps.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import preactivation_scale
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[1.0], [-2.0]]))
    >>> preactivation_scale(net, [[3.0], [-3.0]])
      layer  unit  scale
    0     1     0    3.0
    1     1     1    6.0
    """
    caller = "preactivation_scale"
    nets = Nets([model], X, caller, ["model"], 1)
    chosen = choose_layers(nets.layers, layers, caller, needs_input=True)
    squares = {layer.name: Moments() for layer in chosen}
    for (reading,) in nets.read(inputs=chosen):
        for layer in chosen:
            values = by_unit(reading.inputs[layer.name], layer.unit_axis)
            squares[layer.name].add(values.square())
    frames = []
    for layer in chosen:
        scale = squares[layer.name].mean.sqrt().numpy()
        frames.append(
            pd.DataFrame({"layer": layer.name, "unit": np.arange(len(scale)), "scale": scale})
        )
    return pd.concat(frames, ignore_index=True)


def by_unit(features: torch.Tensor, axis: int) -> torch.Tensor:
    """Return features as float64 (n_units, n_values): every sample and position is a value."""
    if features.ndim == 1:
        features = features[:, None]
    return features.double().movedim(axis, 0).flatten(1).cpu()
