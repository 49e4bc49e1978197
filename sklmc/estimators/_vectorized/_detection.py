"""What modules are: plain chains of layers, by watching a pass; alike but for their weights."""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sklmc._torch import seeded
from sklmc.estimators._vectorized._modules import Layers
from sklmc.models import Call, ModelView, find_chain, module_with_state, named_tensors, view

_N_SAMPLES = 4  # of the watched pass: batch norm needs two

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_SKIPPED = ("_parameters", "_buffers", "_modules", "training")


def chain_layers(module: nn.Module, X: np.ndarray) -> Layers | None:
    """Return the layers of a chain in their order, or None where a module is anything else.

    A chain flattens its samples, if need be, and then hands them through Linear, norm and ReLU
    modules, from a Linear to a Linear, in training and in evaluation alike, and does nothing
    else: whoever runs these layers by themselves computes what the module computes. Looked at is
    what a private copy of the module does with the first samples; that a module may do otherwise
    later on shows in what it asks of its tensors, of random generators or of its own attributes.
    """
    if not _is_plain(module):
        return None
    try:
        return _watch(module, X)
    except Exception:  # what cannot be copied or run has no chain; training says why
        return None


def _is_plain(module: nn.Module) -> bool:
    """Say whether all parameters are trained, each in one place, and nothing is hooked on."""
    for part in module.modules():
        if "forward" in vars(part) or any(getattr(part, name) for name in _HOOKS):
            return False
    named = dict(module.named_parameters(remove_duplicate=False))
    if len(named) > len(list(module.parameters())):  # tied weights, or a layer used twice
        return False
    same = len({parameter.dtype for parameter in named.values()}) == 1
    return same and all(parameter.requires_grad for parameter in named.values())


def _watch(module: nn.Module, X: np.ndarray) -> Layers | None:
    """Watch a copy of a module in training, then in evaluation; return its layers or None."""
    look = view(module_with_state(module, dict(named_tensors(module))), caller="fit")
    x = torch.from_numpy(X[:_N_SAMPLES].copy())
    if len(x) == 1:
        x = x.expand(2, *x.shape[1:]).clone()
    before = read_settings(look.module)
    with seeded(0):
        generators = generator_states()
        rows = [find_chain(look, (x,), training=training) for training in (True, False)]
        moved = generator_states() != generators
    if moved or read_settings(look.module) != before:
        return None
    names = [[call.path for call, _ in row] for row in rows]
    if names[0] != names[1] or not all(_is_whole(row) for row in rows):
        return None
    calls = [call for call, _ in rows[0] if not _does_nothing(call)]
    layers = [(f"{call.path}." if call.path else "", call.module) for call in calls]
    if type(layers[0][1]) is nn.Flatten:
        layers = layers[1:]
    fits = bool(layers) and all(_fits(layer) for _, layer in layers)
    ends = fits and all(type(layers[end][1]) is nn.Linear for end in (0, -1))
    return layers if ends and _holds_all(look, layers) else None


def generator_states() -> tuple:
    """Return the states of the generators that a module may draw from outside torch.

    Whatever draws from torch's is a call, which breaks a chain.
    """
    kind, key, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, key.tobytes(), tuple(rest)


def _is_whole(row: Sequence[tuple[Call, torch.Tensor]]) -> bool:
    """Say whether a row is all that the module does; flattening its samples may come before."""
    if not row:
        return False
    first = row[0][0]
    net = first.inside or first  # itself, where the module is a single layer
    x = net.input
    outputs = [output for call, output in row if not _does_nothing(call)]
    if x._version or any(output.ndim != 2 for output in outputs):
        return False
    if first.index <= net.index + 1:  # nothing comes before
        return first.input is x
    flat = x.flatten(1)
    same = first.input.shape == flat.shape and first.input.data_ptr() == x.data_ptr()
    return same and first.index == net.index + 2


def _does_nothing(call: Call) -> bool:
    """Say whether a layer hands on what it gets."""
    return type(call.module) is nn.Identity


def _fits(layer: nn.Module) -> bool:
    """Say whether a layer has a counterpart among those that are vectorized by hand."""
    if type(layer) is nn.LayerNorm:
        return len(layer.normalized_shape) == 1 and layer.elementwise_affine
    if type(layer) is nn.BatchNorm1d:
        return layer.affine and layer.track_running_stats
    return type(layer) in (nn.Linear, nn.ReLU)


def _holds_all(look: ModelView, layers: Layers) -> bool:
    """Say whether a module has no other parameters and buffers than those of its layers."""
    held = {
        f"{prefix}{name}"
        for prefix, layer in layers
        for name in (*layer._parameters, *layer._buffers)
    }
    tensors = (*look.module.named_parameters(), *look.module.named_buffers())
    return all(name in held for name, _ in tensors)


class VectorizeError(ValueError):
    """Members that were to be trained together differ by more than their weights."""


def check_alike(modules: Sequence[nn.Module]) -> None:
    """Refuse modules that differ by more than the values of their parameters and buffers."""
    first = read_settings(modules[0])
    for module in modules[1:]:
        if read_settings(module) != first:
            raise VectorizeError(
                f"'module' {type(module).__name__} cannot be vectorized: its constructor makes "
                "attributes (or layers) that depend on the seed. Register them as buffers, or use "
                "vectorize=False."
            )


def read_settings(module: nn.Module) -> list[tuple]:
    """Return the kinds and attributes of all layers, and the shapes of their tensors."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    found: list[tuple] = [(name, tuple(part.shape), str(part.dtype)) for name, part in tensors]
    for name, part in module.named_modules():
        found.append((name, type(part)))
        for key, value in vars(part).items():
            if key not in _SKIPPED and not callable(value):
                found.append((name, key, _frozen(value)))
    return found


def _frozen(value) -> object:
    """Return what can be compared of a value: its bytes, or its type if it has none."""
    if type(value) in (OrderedDict, dict, set) and not value:  # a module has a dozen, of hooks
        return type(value), None
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return type(value)
