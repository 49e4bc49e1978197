"""The first layers of one net, the rest of another."""

from __future__ import annotations

import numbers

import torch

from sklmc.features._layers import choose_layers, module_kind, trace_layers
from sklmc.models import Call, ModelView, Watcher, check_compatible, named_tensors, view


def stitch_models(model_a, model_b, layer, X=None):
    """Put the first layers of A before the rest of B.

    If features are linearly connected layer by layer, B's upper layers can use A's features [1]_:
    the stitched net is then about as good as its parts.

    Parameters
    ----------
    model_a, model_b : skorch net, fitted sklmc estimator or torch.nn.Module
        Two nets of one architecture, aligned if they were trained independently.
    layer : int or str
        How many weight layers come from A (0: none, the result is B; as many as there are: A), or
        the module path of the last one that does. What stands between two weight layers (norms,
        activations) goes with the earlier one.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
        A few samples; needed where the shape of the input is not known.

    Returns
    -------
    model : same kind as `model_a`
        A new model that runs as `model_a` and `model_b` do.

    Raises
    ------
    ValueError
        If there is no such layer, the nets differ in architecture, or X is missing where it is
        needed.

    See Also
    --------
    interpolate_models : A net between A and B in every layer.

    Notes
    -----
    Layers count in the order in which they run. A tensor that several layers share goes with the
    first of them.

    References
    ----------
    .. [1] Zhou, Yang, Yang, Yan, Hu, "Going beyond linear mode connectivity: the layerwise
       linear feature connectivity", NeurIPS 2023.

    Examples
    --------
    >>> import torch
    >>> from sklmc.features import stitch_models
    >>> from sklmc.nets import MLP
    >>> a, b = MLP(2, 1, width=4), MLP(2, 1, width=4)
    >>> stitched = stitch_models(a, b, 1)
    >>> x = torch.randn(5, 2)
    >>> torch.equal(stitched(x), b.layers[2](a.layers[:2](x)))
    True
    """
    caller = "stitch_models"
    names = ["model_a", "model_b"]
    looks = [view(m, caller=caller, name=n) for m, n in zip([model_a, model_b], names)]
    check_compatible(looks, caller, names)
    args = looks[0].sample(X)
    count = _count(layer, looks[0], args, caller)
    first = depth_of_tensors(looks[0], args)
    mixed = {
        name: (looks[0] if first[name] <= count else looks[1]).state[name]
        for name in looks[0].state
    }
    return looks[0].rebuild(mixed)


def depth_of_tensors(look: ModelView, args: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Return for every tensor the number of weight layers begun when it is first used, at least 1.

    Tensors of modules that do not run come last.
    """
    depth = 0
    begun: dict[str, int] = {}

    def before(call: Call) -> None:
        nonlocal depth
        depth += module_kind(call.module) == "weight"
        begun.setdefault(call.path, depth)

    with Watcher(look, before) as watcher:
        watcher.run(args)
    first: dict[int, int] = {}
    for name, tensor in named_tensors(look.module):
        found = max(1, _nearest(name, begun, depth))
        first[id(tensor)] = min(found, first.get(id(tensor), found))
    return {name: first[id(tensor)] for name, tensor in named_tensors(look.module)}


def _nearest(name: str, begun: dict[str, int], last: int) -> int:
    """Return when the module that holds a tensor began, or the nearest module around it."""
    path = name
    while path := path.rpartition(".")[0]:
        if path in begun:  # around it: weights of a part that its owner uses without calling it
            return begun[path]
    return last if "." in name else begun.get("", last)


def _count(layer, look: ModelView, args, caller: str) -> int:
    """Return how many weight layers come from A."""
    found = trace_layers(look, args)
    total = max((one.depth for one in found), default=0)
    if isinstance(layer, str):
        return choose_layers(found, [layer], caller)[0].depth
    if isinstance(layer, bool) or not isinstance(layer, numbers.Integral):
        raise TypeError(
            f"{caller}: 'layer' must be a number of layers or a module path, got {layer!r}."
        )
    if not 0 <= layer <= total:
        raise ValueError(
            f"{caller}: 'layer' must lie in 0..{total}, the number of weight layers of the net, "
            f"got {layer!r}."
        )
    return int(layer)
