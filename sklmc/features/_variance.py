"""How much of the variance of its parts a merged net keeps: the collapse that REPAIR mends."""

from __future__ import annotations

import pandas as pd

from sklmc.features._layers import choose_layers
from sklmc.features._nets_on_samples import Nets, check_inner_alphas
from sklmc.features._preactivations import by_unit
from sklmc.models import Moments


def variance_ratio(model_a, model_b, X, *, alphas=(0.5,), layers="weight", repair=None):
    """Measure how far the activations of the nets between A and B have collapsed.

    Averaging weights shrinks the variance of hidden units layer by layer, even after alignment
    [1]_. A ratio near 1 means no collapse; where it falls towards 0 with depth, a repair of
    statistics will help.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture, aligned or not. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples of the data that the nets were trained on.
    alphas : float or sequence of float, default=(0.5,)
        Positions strictly between 0 (A) and 1 (B).
    layers : {"weight", "all", "feature", "relu"} or list of str, default="weight"
        Layers whose outputs are measured.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates the running statistics of the nets between A and B again, on X, as
        :class:`sklmc.LMCScorer` does.

    Returns
    -------
    DataFrame
        One row per layer and alpha: `layer`, `alpha`, `ratio`, the variance over samples (and
        positions) of the merged net's outputs, summed over units, over the mean variance
        ``(1 - alpha) * var_A + alpha * var_B`` of its ends; not negative. NaN where both ends
        are constant.

    Raises
    ------
    ValueError
        If an alpha is 0 or 1, X holds fewer than two samples or the nets differ in architecture.

    Warns
    -----
    StaleStatisticsWarning
        If batch-norm statistics are interpolated because `repair` is None.

    See Also
    --------
    sklmc.repair : What to do about a collapse.
    preactivation_scale : Which units are driven at all.

    References
    ----------
    .. [1] Jordan, Sedghi, Saukh, Entezari, Neyshabur, "REPAIR: renormalizing permuted
       activations for interpolation repair", ICLR 2023.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import variance_ratio
    >>> a, b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    >>> with torch.no_grad():
    ...     _ = b.weight.copy_(-a.weight)
    >>> variance_ratio(a, b, torch.randn(20, 2)).loc[0, "ratio"].item()
    0.0
    """
    caller = "variance_ratio"
    alphas = check_inner_alphas(alphas, caller)
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2, repair)
    chosen = choose_layers(nets.layers, layers, caller)
    spreads = {layer.name: [Moments() for _ in range(2 + len(alphas))] for layer in chosen}
    for readings in nets.read(outputs=chosen, alphas=alphas):
        for layer in chosen:
            for spread, reading in zip(spreads[layer.name], readings):
                spread.add(by_unit(reading.outputs[layer.name], layer.unit_axis))
    rows = []
    for layer in chosen:
        first, second, *merged = (float(s.variance().sum()) for s in spreads[layer.name])
        for alpha, found in zip(alphas, merged):
            mean = (1.0 - alpha) * first + alpha * second
            rows.append([layer.name, alpha, found / mean if mean > 0 else float("nan")])
    return pd.DataFrame(rows, columns=["layer", "alpha", "ratio"])
