"""The list of known classes and functions: what a file may name without the caller's leave."""

from __future__ import annotations

import importlib
import types
from collections import OrderedDict, defaultdict, deque
from functools import partial

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit
from torch import nn
from torch.torch_version import TorchVersion

from sklmc.symmetry import Permutation

# Classes that are defined below one of these may be named if they inherit from one of those.
# What has a road of its own to pickles or to source (torch.jit, torch.fx) is left out.
_FAMILIES: dict[str, tuple[type, ...]] = {
    "sklmc": (object,),
    **dict.fromkeys(
        [f"skorch.{name}" for name in ("callbacks", "dataset", "helper", "history", "net")]
        + ["skorch.classifier", "skorch.regressor", "sklearn.metrics._scorer"]
        + ["sklearn.utils._bunch", "sklearn.utils._metadata_requests"]
        + ["sklearn.neural_network._stochastic_optimizers"],
        (object,),
    ),
    "sklearn": (BaseEstimator, BaseCrossValidator, BaseShuffleSplit),
    "torch.nn": (nn.Module,),
    **dict.fromkeys(["torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm"], (object,)),
    "torch.optim": (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    **dict.fromkeys(
        [f"torch.utils.data.{name}" for name in ("dataloader", "dataset", "sampler")], (object,)
    ),
    "numpy": (np.generic,),
}
# Everything else that may be named, with the name that a file holds.
_SINGLE = {
    f"{value.__module__}.{value.__qualname__}": value
    for value in (
        *(bool, bytes, complex, dict, float, frozenset, int, list, object, set, str, tuple, print),
        *(OrderedDict, defaultdict, deque, partial, TorchVersion, torch.Size),
    )
}
_SKORCH_FUNCTIONS = (
    *("skorch.dataset.unpack_data", "skorch.utils._make_split", "skorch.setter.optimizer_setter"),
    *("skorch.utils.noop", "skorch.utils.to_numpy", "skorch.utils._normalize_numpy_indices"),
    *("skorch.utils._indexing_dict", "skorch.utils._indexing_list_tuple_of_data"),
    *("skorch.utils.freeze_parameter", "skorch.utils.unfreeze_parameter"),
    *("skorch.utils._indexing_ndframe", "skorch.utils._indexing_other"),
)
_METHODS = tuple(
    f"skorch.callbacks.training.ParamMapper.{name}" for name in ("_epoch_at", "_default_schedule")
)
_OF_TORCH = ("torch.nn.functional", "torch.nn.init", "torch")  # whose functions are known


def name_of(value) -> tuple[str, bool]:
    """Return the name by which a file knows a class or a function, and whether it is known."""
    if not isinstance(value, type):
        for place in _OF_TORCH:
            name = f"{place}.{getattr(value, '__name__', '')}"
            if find_known(name) is value:
                return name, True
    name = f"{value.__module__}.{value.__qualname__}"
    return name, find_known(name) is value


def find_known(name: str):
    """Return the class or function of a name that is on the list; None for any other name."""
    if name in _SINGLE:
        return _SINGLE[name]
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts) or "tests" in parts:
        return None
    place, last = ".".join(parts[:-1]), parts[-1]
    if place in _OF_TORCH:
        value = getattr(importlib.import_module(place), last, None)
        if place == "torch":  # tensor operations alone: others set things, or read files
            operation = getattr(value, "__qualname__", "") == f"_VariableFunctionsClass.{last}"
            return value if operation and last != "from_file" else None
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            return value
    parents = tuple(
        parent
        for family, members in _FAMILIES.items()
        if name.startswith(f"{family}.")
        for parent in members
    )
    value = _defined(parts) if parents or name in _SKORCH_FUNCTIONS else None
    if isinstance(value, type):
        return value if issubclass(value, parents) else None
    if isinstance(value, types.FunctionType) and (
        place.startswith("sklearn.metrics.") or name in _SKORCH_FUNCTIONS
    ):
        return value
    return None


def may_be_bound(value, name: str) -> bool:
    """Say whether a file may hold this method of an object of a known class."""
    function = getattr(type(value), name, None)
    home, own = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    return f"{home}.{own}" in _METHODS


def may_be_called(name: str) -> bool:
    """Say whether a file may have a known class called, not only filled with attributes."""
    return name in _SINGLE or name == f"{Permutation.__module__}.{Permutation.__qualname__}"


def _defined(parts: list[str]):
    """Return what a module defines under a name; None for what it merely imports."""
    for cut in range(len(parts) - 1, 0, -1):
        place = ".".join(parts[:cut])
        try:
            value = importlib.import_module(place)
        except ImportError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part, None)
        own = (getattr(value, "__module__", None), getattr(value, "__qualname__", None))
        return value if own == (place, ".".join(parts[cut:])) else None
    return None
