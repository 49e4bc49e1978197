"""Reciprocal orthogonality of two nets: with weak additivity, it implies LEWC."""

from __future__ import annotations

import pandas as pd
import torch

from sklmc.features._cosines import RunningMean, flat
from sklmc.features._layers import choose_layers, linear_part
from sklmc.features._nets_on_samples import Nets


def reciprocal_orthogonality(model_a, model_b, X, *, layers="weight"):
    """Measure how much each net's weights respond to the other net's features.

    Reciprocal orthogonality [1]_ of a layer: ``W_B z_A = 0`` and ``W_A z_B = 0``, where z are
    the layer's inputs in each net. In the first layer both nets see x: there it cannot hold, and
    need not. What is measured is ``|W_B z_A| / |W_A z_A|`` and the same with A and B exchanged,
    averaged over samples; the work defines no ratio in formulas, this is the plainest one.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples.
    layers : {"weight"} or list of str, default="weight"
        All linear and convolutional layers, or some of them by module path.

    Returns
    -------
    DataFrame
        One row per layer:

        * `layer`, `depth` (number of weight layers up to here)
        * `ratio`: mean of the next two; 0 is exact orthogonality, about 1 means that foreign
          weights respond as strongly as the own ones
        * `ratio_a`: B's weights on A's features, over A's own; `ratio_b`: the reverse
        * `n_undefined`: samples left out of either mean because the own response is zero

    Raises
    ------
    ValueError
        If a layer is not linear or convolutional or does not run, X holds fewer than two samples
        or the nets differ in architecture.

    See Also
    --------
    layerwise_exponential_connectivity : What it implies together with weak additivity.

    Notes
    -----
    Biases are left out.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import reciprocal_orthogonality
    >>> from sklmc.nets import MLP
    >>> a, b = MLP(3, 2, width=4, bias=False), MLP(3, 2, width=4, bias=False)
    >>> with torch.no_grad():  # A uses the units 2 and 3, B the units 0 and 1
    ...     a.layers[0].weight[:2] = 0
    ...     a.layers[2].weight[:, :2] = 0
    ...     b.layers[0].weight[2:] = 0
    ...     b.layers[2].weight[:, 2:] = 0
    >>> frame = reciprocal_orthogonality(a, b, torch.rand(10, 3))
    >>> frame.loc[frame.layer == "layers.2", "ratio_a"].fillna(0).item()
    0.0
    """
    caller = "reciprocal_orthogonality"
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2)
    chosen = choose_layers(nets.layers, layers, caller, affine=True, needs_input=True)
    own = [[look.module.get_submodule(c.path) for c in chosen] for look in nets.looks]
    ratios = {layer.name: (RunningMean(), RunningMean()) for layer in chosen}
    for first, second in nets.read(inputs=chosen):
        for layer, in_a, in_b in zip(chosen, *own):
            z_a, z_b = first.inputs[layer.name], second.inputs[layer.name]
            on_a, on_b = ratios[layer.name]
            on_a.add(response_ratio(linear_part(in_b, z_a), linear_part(in_a, z_a)))
            on_b.add(response_ratio(linear_part(in_a, z_b), linear_part(in_b, z_b)))
    rows = []
    for layer in chosen:
        on_a, on_b = ratios[layer.name]
        undefined = on_a.n_undefined + on_b.n_undefined
        ratio = 0.5 * (on_a.mean + on_b.mean)
        rows.append([layer.name, layer.depth, ratio, on_a.mean, on_b.mean, undefined])
    columns = ["layer", "depth", "ratio", "ratio_a", "ratio_b", "n_undefined"]
    return pd.DataFrame(rows, columns=columns)


def response_ratio(foreign: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return the norm of each row (n, ...) over that of the other's; NaN where that is zero."""
    size = flat(own).norm(dim=1)
    return torch.where(size > 0, flat(foreign).norm(dim=1) / size, torch.nan)
