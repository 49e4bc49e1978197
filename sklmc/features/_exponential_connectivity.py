"""Layerwise exponentially weighted connectivity (LEWC)."""

from __future__ import annotations

import pandas as pd

from sklmc.features._cosines import RunningMean, dot, flat, row_cosine
from sklmc.features._layers import choose_layers
from sklmc.features._nets_on_samples import Nets, check_inner_alphas


def layerwise_exponential_connectivity(
    model_a, model_b, X, *, alphas=(0.5,), layers="feature", repair=None
):
    """Measure how nearly the nets between A and B superpose A and B layer by layer.

    Layerwise exponentially weighted connectivity [1]_ says that behind l weight layers the net
    at ``(1 - alpha) * A + alpha * B`` has the features
    ``(1 - alpha)**l * f_A(x) + alpha**l * f_B(x)``. Wide nets without biases that were trained
    with weight decay come near to it without any permutation. It follows from weak additivity
    together with reciprocal orthogonality, and excludes layerwise *linear* connectivity.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples.
    alphas : float or sequence of float, default=(0.5,)
        Positions strictly between 0 (A) and 1 (B). At 1/2 both weights are equal, and the cosine
        is that with the plain mean of the features.
    layers : {"feature", "all", "relu", "weight"} or list of str, default="feature"
        Which layers are measured; "feature" takes what leaves each weight layer for the next
        one, and the output. See :func:`layerwise_linear_connectivity`.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates the running statistics of the nets between A and B again, on X, as
        :class:`sklmc.LMCScorer` does.

    Returns
    -------
    DataFrame
        One row per layer and alpha:

        * `layer`, `depth` (the number l of weight layers up to here), `alpha`
        * `cosine`: mean over samples of the cosine between the merged net's features and the
          superposition, in [-1, 1], 1 under exact connectivity
        * `coef`: the factor for which the merged features are nearest to it times the
          superposition, over all samples; 1 under exact connectivity
        * `n_undefined`: samples left out because a feature vector is zero

    Raises
    ------
    ValueError
        If an alpha is 0 or 1, a layer does not run, X holds fewer than two samples or the nets
        differ in architecture.

    Warns
    -----
    StaleStatisticsWarning
        If batch-norm statistics are interpolated because `repair` is None.

    See Also
    --------
    weak_additivity, reciprocal_orthogonality : The conditions that imply it.
    inverse_temperatures : What it predicts for the scale of logits.

    Notes
    -----
    `depth` counts every weight layer that has run. In nets with shortcuts a feature is a sum
    over paths of several lengths; away from 1/2 the weights are then only a convention.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    Two nets that use different hidden units:

    >>> import torch
    >>> from sklmc.features import layerwise_exponential_connectivity
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(3, 2, width=8, depth=2, bias=False) for _ in range(2)]
    >>> for net, unused in zip(nets, (slice(0, 4), slice(4, 8))):
    ...     with torch.no_grad():
    ...         for layer in net.layers[:4:2]:
    ...             layer.weight[unused] = 0
    ...         for layer in net.layers[2::2]:
    ...             layer.weight[:, unused] = 0
    >>> X = torch.randn(20, 3)
    >>> layerwise_exponential_connectivity(*nets, X, alphas=0.25).round(6)
          layer  depth  alpha  cosine  coef  n_undefined
    0  layers.1      1   0.25     1.0   1.0            0
    1  layers.3      2   0.25     1.0   1.0            0
    2  layers.4      3   0.25     1.0   1.0            0
    """
    caller = "layerwise_exponential_connectivity"
    alphas = check_inner_alphas(alphas, caller)
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2, repair)
    chosen = choose_layers(nets.layers, layers, caller)
    cosines = {(layer, alpha): RunningMean() for layer in chosen for alpha in alphas}
    fits = {key: [0.0, 0.0] for key in cosines}
    for first, second, *merged in nets.read(outputs=chosen, alphas=alphas):
        for layer in chosen:
            u, v = flat(first.outputs[layer.name]), flat(second.outputs[layer.name])
            for alpha, reading in zip(alphas, merged):
                expected = superpose(u, v, alpha, layer.depth)
                found = flat(reading.outputs[layer.name])
                cosines[layer, alpha].add(row_cosine(found, expected))
                fits[layer, alpha][0] += float(dot(found, expected).sum())
                fits[layer, alpha][1] += float(dot(expected, expected).sum())
    rows = []
    for (layer, alpha), found in cosines.items():
        along, size = fits[layer, alpha]
        coef = along / size if size > 0 else float("nan")
        rows.append([layer.name, layer.depth, alpha, found.mean, coef, found.n_undefined])
    return pd.DataFrame(rows, columns=["layer", "depth", "alpha", "cosine", "coef", "n_undefined"])


def superpose(u, v, alpha: float, depth: int):
    """Return ``(1 - alpha)**depth * u + alpha**depth * v``."""
    return (1.0 - alpha) ** depth * u + alpha**depth * v
