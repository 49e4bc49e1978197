"""Commutativity of weights and features: with weak additivity, it implies LLFC."""

from __future__ import annotations

import pandas as pd

from sklmc.features._cosines import relative_distance
from sklmc.features._layers import choose_layers, linear_part
from sklmc.features._nets_on_samples import Nets


def commutativity(model_a, model_b, X, *, layers="weight"):
    """Measure whether the weights of two nets may be exchanged under the sum of their features.

    Commutativity [1]_ of a layer: ``W_A H_A + W_B H_B = W_B H_A + W_A H_B``, where H are the
    layer's inputs in each net; the same as ``(W_A - W_B) (H_A - H_B) = 0``. Together with weak
    additivity it implies layerwise linear feature connectivity. Distances are
    ``|x - y|**2 / (|x| |y|)`` over all entries and samples; 0 is exact.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture; A is the reference, but the measure is symmetric.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples.
    layers : {"weight"} or list of str, default="weight"
        All linear and convolutional layers, or some of them by module path.

    Returns
    -------
    DataFrame
        One row per layer: `layer`; `dist_com`, the distance between both sides; `dist_w`, that
        between the weights, and `dist_h`, that between the inputs, to compare it with. NaN where
        one of the two is zero everywhere; biases cancel and are left out.

    Raises
    ------
    ValueError
        If a layer is not linear or convolutional or does not run, X holds fewer than two samples
        or the nets differ in architecture.

    See Also
    --------
    weak_additivity : The other condition.
    layerwise_linear_connectivity : What both imply.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023.

    Examples
    --------
    >>> import copy
    >>> import torch
    >>> from sklmc.features import commutativity
    >>> from sklmc.nets import MLP
    >>> a = MLP(3, 2, width=5)
    >>> b = copy.deepcopy(a)
    >>> _ = torch.nn.init.normal_(b.layers[2].weight)
    >>> commutativity(a, b, torch.randn(10, 3))[["layer", "dist_com", "dist_h"]]
          layer  dist_com  dist_h
    0  layers.0       0.0     0.0
    1  layers.2       0.0     0.0
    """
    caller = "commutativity"
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2)
    chosen = choose_layers(nets.layers, layers, caller, affine=True, needs_input=True)
    own = [[look.module.get_submodule(c.path) for c in chosen] for look in nets.looks]
    sums = {layer.name: [0.0] * 6 for layer in chosen}
    for first, second in nets.read(inputs=chosen):
        for layer, in_a, in_b in zip(chosen, *own):
            h_a, h_b = first.inputs[layer.name], second.inputs[layer.name]
            straight = linear_part(in_a, h_a) + linear_part(in_b, h_b)
            crossed = linear_part(in_b, h_a) + linear_part(in_a, h_b)
            for place, term in enumerate(_squares(straight, crossed) + _squares(h_a, h_b)):
                sums[layer.name][place] += term
    rows = []
    for layer, in_a, in_b in zip(chosen, *own):
        found = sums[layer.name]
        weights = _squares(in_a.weight.detach(), in_b.weight.detach())
        distances = [relative_distance(*part) for part in (found[:3], weights, found[3:])]
        rows.append([layer.name, *distances])
    return pd.DataFrame(rows, columns=["layer", "dist_com", "dist_w", "dist_h"])


def _squares(x, y) -> list[float]:
    """Return ``|x - y|^2``, ``|x|^2`` and ``|y|^2`` over all entries."""
    x, y = x.double(), y.double()
    return [float((x - y).square().sum()), float(x.square().sum()), float(y.square().sum())]
