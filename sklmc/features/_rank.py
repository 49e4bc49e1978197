"""How many directions a layer's weights use."""

from __future__ import annotations

import pandas as pd
import torch

from sklmc.features._layers import AFFINE, weight_matrix
from sklmc.models import check_finite, view


def stable_rank(model):
    """Measure how many directions the weights of each layer use.

    The stable rank ``|W|_F**2 / |W|_2**2`` is at most the rank and is not moved by tiny singular
    values. A small share of the possible rank leaves room for a second net's features [1]_.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator or torch.nn.Module
        A net with linear or convolutional layers. A convolution's weights are a matrix with one
        row per output channel.

    Returns
    -------
    DataFrame
        One row per layer: `layer`; `stable_rank`, at least 1, NaN for weights that are all zero;
        `full_rank`, the smaller side of the matrix; `relative`, the first over the second.

    Raises
    ------
    NonFiniteError
        If a weight is NaN or infinite (a ValueError).
    ValueError
        If the net has no linear or convolutional layer.

    See Also
    --------
    preactivation_scale : The units that these directions drive.

    References
    ----------
    .. [1] Ito, Yamada, Chijiwa, Kumagai, "Do we really need permutations? Impact of width
       expansion on linear mode connectivity", 2025.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import stable_rank
    >>> layer = torch.nn.Linear(3, 3)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.diag(torch.tensor([2.0, 2.0, 0.0])))
    >>> stable_rank(torch.nn.Sequential(layer)).round(3)
      layer  stable_rank  full_rank  relative
    0     0          2.0          3     0.667
    """
    caller = "stable_rank"
    look = view(model, caller=caller, name="model")
    check_finite(look.state, caller, "model")
    rows = []
    for name, part in look.module.named_modules():
        if isinstance(part, AFFINE):
            matrix = weight_matrix(part)
            top = float(torch.linalg.matrix_norm(matrix, 2))
            rank = float(matrix.square().sum()) / top**2 if top > 0 else float("nan")
            rows.append([name, rank, min(matrix.shape), rank / min(matrix.shape)])
    if not rows:
        raise ValueError(f"{caller}: 'model' has no linear or convolutional layer.")
    return pd.DataFrame(rows, columns=["layer", "stable_rank", "full_rank", "relative"])
