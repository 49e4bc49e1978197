"""What a merged net needs besides the mean of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sklmc._validation import check_models, check_option, check_same_length, check_weights
from sklmc.merging._batch_norm import reestimate_statistics, tracked_norms
from sklmc.models import ModelView, check_compatible, view

State = Mapping[str, torch.Tensor]
METHODS = ("auto", "batch_norm")


def repair(model, endpoints, X, *, y=None, weights=None, method="auto"):
    """Repair a merged model so that its hidden units respond as those of its end points did.

    The mean of weights is not the net whose activations are the mean: its batch-norm layers
    carry statistics that belong to no net. The end points must be *aligned* with each other, as
    :func:`merge_models` leaves them.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator or torch.nn.Module
        The weighted mean of `endpoints`. It is not changed.
    endpoints : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
        The aligned models that `model` was averaged from. They are not changed.
    X : array-like of shape (n_samples, ...)
        Unlabelled samples of the data that the models were trained on.
    y : array-like of shape (n_samples,), default=None
        Labels of X. No method of now needs them.
    weights : array-like of shape (n_endpoints,), default=None
        The weights of the mean; None means equal weights. Where all weight lies on one end
        point, the model is that end point and comes back as it is.
    method : {"auto", "batch_norm"}, default="auto"
        "batch_norm" replaces the running mean and variance of every batch-norm layer by the
        mean and the unbiased variance of what reaches the layer from X, in data-flow order;
        a model without batch norm comes back as it is. "auto" does this where there is batch
        norm, and nothing elsewhere.

    Returns
    -------
    model : same kind as `model`
        A new model.

    Raises
    ------
    ValueError
        If the models differ in architecture, X is missing, empty or of a single sample where a
        variance is needed, or y has another length than X.

    See Also
    --------
    merge_models : Aligns, averages and repairs in one call.
    average_models : The plain mean.

    Notes
    -----
    Statistics are exact means over all of X, whatever the batch size. X takes one pass where it
    fits into a block of 1,024 samples; beyond, each batch-norm layer takes a part of a pass.

    References
    ----------
    .. [1] Izmailov et al., "Averaging weights leads to wider optima and better generalization",
       UAI 2018.
    .. [2] Jordan et al., "REPAIR: REnormalizing permuted activations for interpolation repair",
       ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklmc import average_models
    >>> from sklmc.merging import repair
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(n_features=2, n_outputs=2, width=4, norm="batch") for _ in range(2)]
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> repaired = repair(average_models(nets), nets, X)
    >>> hidden = repaired.layers[0](torch.tensor(X, dtype=torch.float32))
    >>> torch.allclose(repaired.layers[1].running_mean, hidden.mean(dim=0), atol=1e-6)
    True
    """
    caller = "repair"
    check_option(method, METHODS, caller, "method")
    endpoints = check_models(endpoints, caller, name="endpoints")
    weights = check_weights(weights, len(endpoints), caller)
    names = ["model", *(f"endpoints[{i}]" for i in range(len(endpoints)))]
    views = [
        view(one, caller=caller, name=name)
        for one, name in zip([model, *endpoints], names, strict=True)
    ]
    check_compatible(views, caller, names)
    if X is None:
        raise ValueError(f"{caller}: 'X' is None; pass samples of the data (labels not needed).")
    if y is not None:
        check_same_length(X, y, caller)
    inputs = views[0].to_input(X)
    return views[0].rebuild(repaired_state(views[0], views[0].state, inputs, weights, method))


def repaired_state(
    view: ModelView, state: State, inputs, weights: np.ndarray, method: str | None
) -> dict[str, torch.Tensor]:
    """Return a repaired copy of a weighted mean of states."""
    if not needs_repair(view, weights, method):
        return dict(state)
    return reestimate_statistics(view, state, inputs)


def needs_repair(view: ModelView, weights: np.ndarray, method: str | None) -> bool:
    """Say whether a mean with these weights differs from its end points in what `method` mends."""
    return method is not None and np.count_nonzero(weights) > 1 and bool(tracked_norms(view.module))
