"""The scale of logits between two nets: fitted, and as superposition predicts it."""

from __future__ import annotations

import pandas as pd

from sklmc.features._exponential_connectivity import superpose
from sklmc.features._nets_on_samples import Nets, check_inner_alphas
from sklmc.models import (
    as_logits,
    fit_inverse_temperature,
    is_classification,
    predict_outputs,
    read_labelled_data,
)


def inverse_temperatures(model_a, model_b, X, y=None, *, alphas=(0.5,), repair=None):
    """Compare the inverse temperature that merged logits need with the one predicted for them.

    Under exact exponentially weighted connectivity [1]_ the logits of the net between A and B
    are ``(1 - alpha)**L * f_A(x) + alpha**L * f_B(x)`` behind L weight layers: at 1/2 they are
    ``2**(1 - L)`` times the mean logits, and need ``2**(L - 1)`` times the ensemble's inverse
    temperature. Inverse temperatures minimise the cross entropy of ``softmax(beta * logits)`` on
    (X, y): take samples that the nets were not trained on.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two classifiers of one architecture. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Held-out samples.
    y : array-like of shape (n_samples,), default=None
        Class labels (integers 0..n_classes-1 for a plain module). None where X holds them
        (Dataset, DataLoader).
    alphas : float or sequence of float, default=(0.5,)
        Positions strictly between 0 (A) and 1 (B).
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates the running statistics of the nets between A and B again, on X, as
        :class:`sklmc.LMCScorer` does.

    Returns
    -------
    DataFrame
        One row per alpha: `alpha`; `fitted`, the inverse temperature of the net there;
        `predicted`, that of the superposition; `ensemble`, that of the mean logits
        ``(1 - alpha) * f_A + alpha * f_B``; `n_weight_layers`, the L that was used. All positive.

    Raises
    ------
    ValueError
        If an alpha is 0 or 1, y does not fit, or the nets are regressors.

    Warns
    -----
    StaleStatisticsWarning
        If batch-norm statistics are interpolated because `repair` is None.

    See Also
    --------
    layerwise_exponential_connectivity : Whether the premise is met.

    Notes
    -----
    Biases and norm layers break the prediction of scale. Where logits separate the classes of
    (X, y) perfectly, no finite inverse temperature is best and the bound of the fit is returned.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklmc.features import inverse_temperatures
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(3, 2, width=8, depth=1, bias=False) for _ in range(2)]
    >>> with torch.no_grad():  # different hidden units
    ...     nets[0].layers[0].weight[:4] = 0
    ...     nets[1].layers[0].weight[4:] = 0
    ...     nets[0].layers[2].weight[:, :4] = 0
    ...     nets[1].layers[2].weight[:, 4:] = 0
    >>> rng = np.random.default_rng(0)
    >>> frame = inverse_temperatures(*nets, rng.normal(size=(90, 3)), rng.integers(0, 2, 90))
    >>> bool(abs(frame.fitted - frame.predicted).max() < 1e-3 * frame.predicted.max())
    True
    """
    caller = "inverse_temperatures"
    alphas = check_inner_alphas(alphas, caller)
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2, repair)
    _, target = read_labelled_data(nets.looks[0], nets.data, y)
    target = target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target
    if not is_classification(target):
        raise ValueError(
            f"{caller}: 'y' holds floats, which means regression; a temperature scales logits."
        )
    first, second = (as_logits(predict_outputs(look, nets.data)).double() for look in nets.looks)
    depth = nets.n_weight_layers
    rows = []
    for alpha, state in zip(alphas, nets.between(alphas), strict=True):
        merged = as_logits(predict_outputs(nets.looks[0], nets.data, state))
        mean = (1.0 - alpha) * first + alpha * second
        scaled = [merged.double(), superpose(first, second, alpha, depth), mean]
        rows.append([alpha, *(fit_inverse_temperature(z, target) for z in scaled), depth])
    columns = ["alpha", "fitted", "predicted", "ensemble", "n_weight_layers"]
    return pd.DataFrame(rows, columns=columns)
