"""The error that layerwise linear feature connectivity (LLFC) allows between two nets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sklmc.features._nets_on_samples import Nets, check_inner_alphas
from sklmc.models import (
    is_classification,
    per_sample_error,
    predict_outputs,
    read_labelled_data,
)

SLACK = 1e-12  # of a mean over samples


def error_bound(model_a, model_b, X, y=None, *, alphas=(0.25, 0.5, 0.75), repair=None):
    """Check the error between two nets against the bound that feature connectivity gives.

    Where the logits of a net between A and B are a positive multiple of the mean of A's and B's
    logits, it is right wherever both are [1]_: its error is at most the sum of theirs, and so at
    most twice the greater one. An error above the bound proves that the logits are not linearly
    connected; one below it proves nothing.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two classifiers of one architecture. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        Samples.
    y : array-like of shape (n_samples,), default=None
        Class labels (integers 0..n_classes-1 for a plain module). None where X holds them
        (Dataset, DataLoader).
    alphas : float or sequence of float, default=(0.25, 0.5, 0.75)
        Positions strictly between 0 (A) and 1 (B).
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates the running statistics of the nets between A and B again, on X, as
        :class:`sklmc.LMCScorer` does.

    Returns
    -------
    DataFrame
        One row per alpha: `alpha`; `error` of the net there, `error_a`, `error_b` (shares of
        samples, 0 to 1); `bound`, twice the greater end error; `holds`, whether the error keeps
        within it.

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
    layerwise_linear_connectivity : Whether the premise is met.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023 (lemma 1).

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.features import error_bound
    >>> from sklmc.nets import MLP
    >>> X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    >>> a = MLP(2, 2, depth=0)
    >>> bool(error_bound(a, a, X, y, alphas=0.5).loc[0, "holds"])
    True
    """
    caller = "error_bound"
    alphas = check_inner_alphas(alphas, caller)
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 1, repair)
    _, target = read_labelled_data(nets.looks[0], nets.data, y)
    if not is_classification(target):
        raise ValueError(
            f"{caller}: 'y' holds floats, which means regression; the bound is about class labels."
        )

    def error(state=None, look=nets.looks[0]) -> float:
        outputs = predict_outputs(look, nets.data, state)
        return float(per_sample_error(outputs, target, caller).mean())

    ends = error(), error(look=nets.looks[1])
    rows = []
    for alpha, state in zip(alphas, nets.between(alphas), strict=True):
        found, bound = error(state), 2 * max(ends)
        rows.append([alpha, found, *ends, bound, np.bool_(found <= bound + SLACK)])
    columns = ["alpha", "error", "error_a", "error_b", "bound", "holds"]
    return pd.DataFrame(rows, columns=columns)
