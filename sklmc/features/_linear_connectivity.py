"""Layerwise linear feature connectivity (LLFC)."""

from __future__ import annotations

import pandas as pd
import torch

from sklmc._validation import check_option
from sklmc.features._cosines import RunningMean, cosine, grams
from sklmc.features._layers import choose_layers
from sklmc.features._nets_on_samples import Nets, check_inner_alphas

COLUMNS = [
    "layer",
    "alpha",
    "one_minus_cosine",
    "one_minus_cosine_std",
    "one_minus_cosine_ab",
    "coef",
    "n_undefined",
]


def layerwise_linear_connectivity(
    model_a, model_b, X, *, alphas=(0.25, 0.5, 0.75), layers="all", absolute=False, repair=None
):
    """Measure how nearly the features between two nets are the mean of the nets' features.

    Layerwise linear feature connectivity [1]_ says that in every layer the net at
    ``(1 - alpha) * A + alpha * B`` has, up to a factor, the features
    ``(1 - alpha) * f_A(x) + alpha * f_B(x)``. Compare `one_minus_cosine` with
    `one_minus_cosine_ab`, and with a pair of independent nets: their hidden layers look connected
    as well.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture. A is the reference, ``alpha=0``.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        At least two samples.
    alphas : float or sequence of float, default=(0.25, 0.5, 0.75)
        Positions strictly between 0 (A) and 1 (B).
    layers : {"all", "feature", "relu", "weight"} or list of str, default="all"
        Which layers are measured, by kind or by module path. "all": layers with weights, norms
        and activations; "feature": for each weight layer what leaves it for the next one, the
        output last. An activation function that is no module is called ``path.relu()``, the second
        use of a layer ``path:1``.
    absolute : bool, default=False
        Whether the absolute value of each cosine is taken, as the authors' code does; a pair of
        opposite features then has distance 0 instead of 2.
    repair : {"batch_norm"} or None, default=None
        "batch_norm" estimates the running statistics of the nets between A and B again, on X, as
        :class:`sklmc.LMCScorer` does.

    Returns
    -------
    DataFrame
        One row per layer and alpha, in the order in which layers run:

        * `layer`, `alpha`
        * `one_minus_cosine`, `one_minus_cosine_std`: mean and standard deviation over samples of
          1 minus the cosine between the merged net's features and the mean of the features
        * `one_minus_cosine_ab`: mean of 1 minus the cosine between the features of A and B
        * `coef`: the factor c for which the merged features are nearest to c times the mean
          features, over all samples (1 under exact connectivity without a factor)
        * `n_undefined`: samples that were left out of the means because a feature vector is
          zero; where none is left the means are NaN

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
    layerwise_exponential_connectivity : The law of wide nets that are not aligned.
    weak_additivity, commutativity : Conditions that together imply connectivity.

    Notes
    -----
    Features of a sample are flattened, sums run in float64. One forward pass per net and per
    alpha; memory does not depend on the number of samples.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023.

    Examples
    --------
    >>> import copy
    >>> import torch
    >>> from sklmc.features import layerwise_linear_connectivity
    >>> from sklmc.nets import MLP
    >>> a = MLP(2, 3, width=8, depth=1)
    >>> b = copy.deepcopy(a)
    >>> _ = torch.nn.init.normal_(b.layers[2].weight)
    >>> X = torch.randn(20, 2)
    >>> frame = layerwise_linear_connectivity(a, b, X, alphas=0.5)
    >>> frame.set_index("layer")[["one_minus_cosine", "coef"]].round(6).abs()
              one_minus_cosine  coef
    layer
    layers.0               0.0   1.0
    layers.1               0.0   1.0
    layers.2               0.0   1.0
    """
    caller = "layerwise_linear_connectivity"
    alphas = check_inner_alphas(alphas, caller)
    check_option(absolute, [True, False], caller, "absolute")
    nets = Nets([model_a, model_b], X, caller, ["model_a", "model_b"], 2, repair)
    chosen = choose_layers(nets.layers, layers, caller)
    sums = {(layer.name, alpha): _PathSums(alpha, absolute) for layer in chosen for alpha in alphas}
    for readings in nets.read(outputs=chosen, alphas=alphas):
        for layer in chosen:
            products = grams([reading.outputs[layer.name] for reading in readings])
            for place, alpha in enumerate(alphas, start=2):
                sums[layer.name, alpha].add(products, place)
    rows = [[name, alpha, *found.summary()] for (name, alpha), found in sums.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


class _PathSums:
    """Running sums of one layer at one alpha."""

    def __init__(self, alpha: float, absolute: bool):
        self.alpha, self.absolute = alpha, absolute
        self.merged, self.ends = RunningMean(), RunningMean()
        self.along = self.size = 0.0
        self.n_undefined = 0

    def add(self, products: torch.Tensor, place: int) -> None:
        """Take inner products (n, k, k) of features of A, B and, at `place`, the merged net."""
        x = self.alpha
        uu, uv, vv = products[:, 0, 0], products[:, 0, 1], products[:, 1, 1]
        wu, wv, ww = products[:, place, 0], products[:, place, 1], products[:, place, place]
        mean_size = (1 - x) ** 2 * uu + 2 * x * (1 - x) * uv + x**2 * vv
        along = (1 - x) * wu + x * wv
        between, apart = cosine(along, ww, mean_size), cosine(uv, uu, vv)
        if self.absolute:
            between, apart = between.abs(), apart.abs()
        self.merged.add(1.0 - between)
        self.ends.add(1.0 - apart)
        self.n_undefined += int((between.isnan() | apart.isnan()).sum())
        self.along += float(along.sum())
        self.size += float(mean_size.sum())

    def summary(self) -> list[float]:
        """Return the measured columns."""
        coef = self.along / self.size if self.size > 0 else float("nan")
        return [self.merged.mean, self.merged.std, self.ends.mean, coef, self.n_undefined]
