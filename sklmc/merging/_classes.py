"""Nets that know different classes, given one head for all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging._repairs._layer import WeightLayer
from sklmc.merging._repairs._layers import find_layers
from sklmc.models import ModelView, is_classification, view

NEVER = -30.0  # the logit of a class that a net has not seen: a probability of 1e-13


def widen_classes(
    models: Sequence, caller: str, names: Sequence[str]
) -> tuple[list, torch.Tensor | None, tuple[str, ...]]:
    """Return the models with outputs for the classes of all, and which of these each has seen.

    A class that a model has not seen gets weights of zero and a logit that is never the largest.
    The second is bool (n_models, n_classes), None where all have seen all; the third names the
    tensors of the head.
    """
    looks = [view(model, caller=caller, name=name) for model, name in zip(models, names)]
    own = [look.classes for look in looks]
    if any(classes is None for classes in own):
        return list(models), None, ()
    union = np.unique(np.concatenate(own))
    known = torch.from_numpy(np.stack([np.isin(union, classes) for classes in own]))
    if bool(known.all()):
        return list(models), None, ()
    widened, heads = [], set()
    for look, classes in zip(looks, own):
        model, head = _widened(look, np.searchsorted(union, classes), union)
        widened.append(model)
        heads.add(head)
    if len(heads) > 1:
        raise ArchitectureMismatchError(
            f"{caller}: the layers that give the outputs have different names, "
            f"{sorted(heads)!r}; merge nets of one architecture."
        )
    return widened, known, heads.pop()


def _widened(look: ModelView, places: np.ndarray, union: np.ndarray) -> tuple:
    """Return a model with a wider head, and the names of the head's tensors."""
    layers, _ = find_layers(look, look.state, look.sample())
    heads = [layer for layer in layers if isinstance(layer, WeightLayer) and layer.is_output]
    weight = look.state[heads[0].weight] if len(heads) == 1 else None
    plain = weight is not None and heads[0].bias is not None and heads[0].norm is None
    plain = plain and heads[0].kind in ("linear", "conv")  # of which an output is a row
    if not plain or len(weight) != len(places) or look.net is None:
        raise ArchitectureMismatchError(
            f"{look.caller}: {look.name} knows the classes {look.classes.tolist()!r} of "
            f"{union.tolist()!r}, and its head cannot be widened: that takes a linear layer with a "
            "bias that gives one logit for each class; train it with classes=[...], all of them."
        )
    (head,) = heads
    module = copy.deepcopy(look.original)
    path = head.weight.rpartition(".")[0]
    layer = module.get_submodule(path)
    with torch.no_grad():
        new_weight = weight.new_zeros(len(union), *weight.shape[1:])
        new_bias = weight.new_full((len(union),), NEVER)
        new_weight[places], new_bias[places] = weight, look.state[head.bias]
    layer.weight, layer.bias = nn.Parameter(new_weight), nn.Parameter(new_bias)
    for size in ("out_features", "out_channels"):
        if hasattr(layer, size):
            setattr(layer, size, len(union))
    wider = view(look.around_module(module), caller=look.caller, name=look.name)
    return wider.relabelled(union), (head.weight, head.bias)


def labels_of(look: ModelView, target: torch.Tensor) -> np.ndarray:
    """Return labels or values as users write them."""
    codes = target.numpy()
    if hasattr(look.net, "_decode_target"):  # also the shape that the net was fitted on
        return look.net._decode_target(codes)
    coded = look.classes is not None and is_classification(target)
    return look.classes[codes] if coded else codes


def count_classes(
    look: ModelView,
    names: list[str],
    known: torch.Tensor | None,
    target: torch.Tensor | None,
    part: torch.Tensor | None,
) -> tuple[np.ndarray, list[str], np.ndarray] | None:
    """Return how many samples of each class each part holds, or which it has seen.

    Counts (n_nets, n_classes), the names of the nets, the classes.
    """
    if part is not None and target is not None and look.classes is not None:
        n_classes = len(look.classes)
        cells = torch.bincount(part * n_classes + target, minlength=len(names) * n_classes)
        return cells.reshape(len(names), -1).numpy(), names, look.classes
    if known is None:
        return None
    return known.long().numpy(), names, look.classes
