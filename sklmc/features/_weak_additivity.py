"""Weak additivity of activation functions: one condition of LLFC and of LEWC."""

from __future__ import annotations

import math

import pandas as pd
from torch import nn

from sklmc.features._cosines import RunningMean, flat, row_cosine
from sklmc.features._layers import choose_layers
from sklmc.features._nets_on_samples import Nets, check_inner_alphas


def weak_additivity(model_a, model_b, X, *, alphas=(0.5,), layers="relu"):
    """Measure whether ReLU and averaging commute on the pre-activations of two nets.

    Weak additivity [1]_: ``relu((1 - alpha) * z_A + alpha * z_B)`` equals
    ``(1 - alpha) * relu(z_A) + alpha * relu(z_B)``, where z are the ReLU inputs of each net on
    the same sample. Independent Gaussian vectors already have a cosine of 0.9304 at 1/2: a
    cosine says something only by its distance from `null`.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples.
    alphas : float or sequence of float, default=(0.5,)
        Positions strictly between 0 (A) and 1 (B).
    layers : {"relu"} or list of str, default="relu"
        All ReLU layers, or activations by name. A function that is no module is called
        ``path.relu()``; the second use of a layer ``path:1``.

    Returns
    -------
    DataFrame
        One row per layer and alpha:

        * `layer`, `alpha`
        * `cosine`: mean over samples of the cosine between both sides; 1 is exact
        * `null`: its value for independent standard normal vectors of high dimension
          (0.9304 at 1/2); NaN for activations other than ReLU, whose value depends on scale
        * `n_undefined`: samples left out because a side is zero

    Raises
    ------
    ValueError
        If an alpha is 0 or 1, the net has no such activation, X holds fewer than two samples or
        the nets differ in architecture.

    See Also
    --------
    reciprocal_orthogonality : With it, implies exponentially weighted connectivity.
    commutativity : With it, implies linear feature connectivity.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023.
    .. [2] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import weak_additivity
    >>> from sklmc.nets import MLP
    >>> a, b = MLP(4, 2, width=8), MLP(4, 2, width=8)
    >>> frame = weak_additivity(a, b, torch.randn(30, 4))
    >>> frame.loc[0, "layer"], round(frame.loc[0, "null"], 4)
    ('layers.1', np.float64(0.9304))
    """
    caller = "weak_additivity"
    alphas = check_inner_alphas(alphas, caller)
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2)
    chosen = choose_layers(nets.layers, layers, caller, needs_input=True)
    for layer in chosen:
        _check_activation(layer, nets.layers, caller)
    cosines = {(layer, alpha): RunningMean() for layer in chosen for alpha in alphas}
    for first, second in nets.read(inputs=chosen):
        for layer in chosen:
            z_a, z_b = first.inputs[layer.name], second.inputs[layer.name]
            for alpha in alphas:
                both = additivity_sides(layer.function, z_a, z_b, alpha)
                cosines[layer, alpha].add(row_cosine(*both))
    rows = []
    for (layer, alpha), found in cosines.items():
        null = gaussian_null(alpha) if layer.kind == "relu" else float("nan")
        rows.append([layer.name, alpha, found.mean, null, found.n_undefined])
    return pd.DataFrame(rows, columns=["layer", "alpha", "cosine", "null", "n_undefined"])


def additivity_sides(function, z_a, z_b, alpha: float):
    """Return the activation of the mean and the mean of the activations, each (n, d)."""
    mixed = (1.0 - alpha) * z_a + alpha * z_b
    # an activation may work in place: hand it tensors of its own
    a, b = flat(function(z_a.clone())), flat(function(z_b.clone()))
    return flat(function(mixed)), (1.0 - alpha) * a + alpha * b


def gaussian_null(alpha: float) -> float:
    """Return the cosine of both sides for ReLU and independent standard normal vectors.

    The moments are those of the arc-cosine kernel; at 1/2 it is (3/4 + 1/pi) / sqrt(1 + 1/pi).
    """
    p, q = 1.0 - alpha, alpha
    scale = math.hypot(p, q)

    def moment(weight: float) -> float:
        angle = math.acos(weight / scale)
        return scale * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi)

    along = p * moment(p) + q * moment(q)
    mean_square = scale**2 / 2 + p * q / math.pi
    return along / math.sqrt(scale**2 / 2 * mean_square)


def _check_activation(layer, found, caller: str) -> None:
    """Refuse a layer that is no activation function, or one with weights of its own."""
    module = layer.module
    weighted = isinstance(module, nn.Module) and next(module.parameters(), None) is not None
    if layer.function is None or weighted:
        names = [one.name for one in found if one.function is not None]
        raise ValueError(
            f"{caller}: layer {layer.name!r} is no activation function without weights; choose "
            f"from {names!r}."
        )
