"""How alike the hidden units of nets are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

from sklmc._validation import check_names, check_option
from sklmc.features._layers import AFFINE, choose_layers, weight_matrix
from sklmc.features._nets_on_samples import Nets
from sklmc.features._preactivations import by_unit
from sklmc.models import (
    CrossMoments,
    ModelView,
    Moments,
    check_compatible,
    correlation,
    view,
)

NAMES = ["model_a", "model_b"]


def feature_similarity(model_a, model_b=None, X=None, *, on="weight", layers=None):
    """Measure how alike hidden units are, within a net or between two.

    Wide nets hold the same feature many times: their matrix of similarities, with units ordered
    by cluster, shows blocks.

    Parameters
    ----------
    model_a : skorch net, fitted sklmc estimator or torch.nn.Module
        A net; the reference.
    model_b : same kind, default=None
        A second net of one architecture with A, whose units are compared with those of A. None:
        the units of A among themselves.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
        At least two samples; needed for activations.
    on : {"weight", "activation"}, default="weight"
        "weight": the cosine of incoming weights, bias included as one more weight. "activation":
        Pearson's correlation of what the layer puts out over samples (and positions).
    layers : str or list of str, default=None
        Module paths. None: all linear and convolutional layers but the last for weights, every
        ReLU for activations.

    Returns
    -------
    DataFrame
        One row per layer and pair of units: `layer`, `unit_a`, `unit_b`, `similarity` in
        [-1, 1], NaN where a unit has no weights or is constant. Rows follow the order of the
        clusters (average linkage, each net's own units), so that
        ``frame.pivot`` with the order of appearance is the ordered matrix.

    Raises
    ------
    ValueError
        If X is missing where it is needed, there is no such layer, or the nets differ in
        architecture.

    See Also
    --------
    RedundancyReducer : Merges units that are alike.
    FeatureSimilarityDisplay : Draws the matrix.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import feature_similarity
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[1.0], [3.0]]))
    ...     _ = net[0].bias.zero_()
    >>> feature_similarity(net).round(6)
      layer  unit_a  unit_b  similarity
    0     0       0       0         1.0
    1     0       0       1         1.0
    2     0       1       0         1.0
    3     0       1       1         1.0
    """
    caller = "feature_similarity"
    check_option(on, ["weight", "activation"], caller, "on")
    models = [model_a] if model_b is None else [model_a, model_b]
    if on == "weight":
        matrices = _of_weights(models, layers, caller)
    else:
        if X is None:
            raise ValueError(
                f"{caller}: on='activation' needs 'X', samples to run the nets on; pass some, or "
                "on='weight'."
            )
        matrices = _of_activations(models, X, layers, caller)
    frames = []
    for name, (within_a, within_b, between) in matrices.items():
        rows, columns = cluster_order(within_a), cluster_order(within_b)
        ordered = between[np.ix_(rows, columns)]
        frames.append(
            pd.DataFrame(
                {
                    "layer": name,
                    "unit_a": np.repeat(rows, len(columns)),
                    "unit_b": np.tile(columns, len(rows)),
                    "similarity": ordered.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def cosine_matrix(u: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Return the cosine of every row of u (m, d) with every row of v (n, d); NaN for zero rows."""
    u, v = (part / part.norm(dim=1, keepdim=True) for part in (u.double(), v.double()))
    return (u @ v.T).clamp(-1.0, 1.0).numpy()


def cluster_order(similarity: np.ndarray) -> np.ndarray:
    """Return the units (n, n) in the order of a dendrogram with average linkage."""
    if len(similarity) < 3:
        return np.arange(len(similarity))
    distance = 1.0 - np.nan_to_num(similarity, nan=0.0)
    return leaves_list(linkage(distance[np.triu_indices(len(distance), k=1)], method="average"))


def incoming_weights(layer: torch.nn.Module) -> torch.Tensor:
    """Return a layer's weights and bias as float64 (n_units, n_inputs + 1)."""
    matrix = weight_matrix(layer)
    if layer.bias is None:
        return matrix
    return torch.cat([matrix, layer.bias.detach().double().cpu()[:, None]], dim=1)


def _of_weights(models, layers, caller: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Return cosines of incoming weights: within A, within B, between."""
    looks = [view(m, caller=caller, name=name) for m, name in zip(models, NAMES)]
    check_compatible(looks, caller, NAMES[: len(looks)])
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for name in _affine_names(looks[0], layers, caller):
        parts = [incoming_weights(look.module.get_submodule(name)) for look in looks]
        u, v = parts[0], parts[-1]
        found[name] = (cosine_matrix(u, u), cosine_matrix(v, v), cosine_matrix(u, v))
    return found


def _affine_names(look: ModelView, layers, caller: str) -> list[str]:
    """Return the module paths whose weights are compared."""
    paths = [name for name, part in look.module.named_modules() if isinstance(part, AFFINE)]
    if layers is None:
        if len(paths) < 2:
            raise ValueError(
                f"{caller}: 'model_a' has no hidden linear or convolutional layer; name one in "
                "'layers'."
            )
        return paths[:-1]
    names = check_names(layers, caller, "layers")
    for name in names:
        check_option(name, paths, caller, "layers")
    return names


def _of_activations(models, X, layers, caller: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Return correlations of outputs: within A, within B, between."""
    nets = Nets(models, X, caller, NAMES[: len(models)], 2)
    chosen = choose_layers(nets.layers, "relu" if layers is None else layers, caller)
    sums = {layer.name: (CrossMoments(), Moments()) for layer in chosen}
    for readings in nets.read(outputs=chosen):
        for layer in chosen:
            cross, own = sums[layer.name]
            outputs = [reading.outputs[layer.name] for reading in readings]
            units = torch.cat([by_unit(one, layer.unit_axis) for one in outputs])
            cross.add(units, units)
            own.add(units)
    found = {name: correlation(cross, own, own).numpy() for name, (cross, own) in sums.items()}
    return {name: _blocks(matrix, len(models)) for name, matrix in found.items()}


def _blocks(correlation: np.ndarray, n_nets: int) -> tuple[np.ndarray, ...]:
    """Cut the matrix over all units into within A, within B and between."""
    n = len(correlation) // n_nets
    last = slice((n_nets - 1) * n, None)
    return correlation[:n, :n], correlation[last, last], correlation[:n, last]
