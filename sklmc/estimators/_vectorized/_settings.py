"""What modules are besides the values of their tensors: members must have it in common."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

_SKIPPED = ("_parameters", "_buffers", "_modules", "training")
_PLAIN = (int, str, bool, type(None))
_HOLDERS = (dict, OrderedDict, set)  # a module has a dozen, of hooks, that are empty


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
    """Return a value that can be compared: itself, its bytes, or its type if it has none."""
    if type(value) in _PLAIN:
        return type(value), value
    if type(value) in _HOLDERS and not value:
        return type(value), None
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return type(value)
