"""The points of a parameter grid: checked before anything is trained, and as tables show them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from sklmc._validation import did_you_mean
from sklmc.estimators._members import inner_net
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._parameters import check_arguments
from sklmc.models import Unreadable, fingerprint

_LISTS = (list, tuple, range, np.ndarray)  # of values; anything else is one value


def list_points(param_grid) -> list[dict]:
    """Return the points of a grid in ParameterGrid's order; each once."""
    if not isinstance(param_grid, ParameterGrid):
        dicts = [param_grid] if isinstance(param_grid, Mapping) else param_grid
        listed = []
        for part in dicts:
            if not isinstance(part, Mapping):
                raise TypeError(
                    f"ModelGrid: 'param_grid' must be a dict or a list of dicts, got "
                    f"{part!r} in it."
                )
            wrong = [name for name in part if not isinstance(name, str)]
            if wrong:
                raise TypeError(
                    f"ModelGrid: 'param_grid' must have names of parameters as keys, got "
                    f"{wrong[0]!r}."
                )
            lists = {name: v if isinstance(v, _LISTS) else [v] for name, v in part.items()}
            listed.append(lists)
        param_grid = ParameterGrid(listed)
    points = list(param_grid)
    if not points:
        raise ValueError("ModelGrid: 'param_grid' has no point.")
    seen = set()
    for params in points:
        key = tuple((name, identity(params[name])) for name in sorted(params))
        if key in seen:
            raise ValueError(
                f"ModelGrid: {params!r} is in 'param_grid' twice; both would be the same nets."
            )
        seen.add(key)
    return points


def with_params(estimator, params: dict):
    """Return a clone with the parameters of one cell, all names checked before any training."""
    population = clone(estimator)
    known = population.get_params(deep=True)
    parts = {**{f"{name}__": part for name, part in known.items()}, "": population}
    nets = {prefix: part for prefix, part in parts.items() if isinstance(part, ArrayNet)}
    for name in params:
        if name in ("random_state", "verbose"):
            raise ValueError(
                f"ModelGrid: {name!r} cannot be in 'param_grid': every member gets its own."
            )
        if name in known:
            continue
        prefix = next((one for one in nets if name.startswith(one)), None)
        if prefix is None:
            raise ValueError(
                f"ModelGrid: {name!r} is no parameter of {type(population).__name__}."
                f"{did_you_mean(name, known)}"
            )
        # a net knows its module's arguments, which it does not list
        nets[prefix]._check_names([name.removeprefix(prefix)], "ModelGrid")
    population.set_params(**params)
    net = inner_net(population)
    if isinstance(net, ArrayNet):
        net._check_parameters()
        check_arguments(net.module, "module", net.get_params_for("module"), "ModelGrid")
    return population


def label_points(points: Sequence[Mapping]) -> list[dict]:
    """Return the points of a grid with labels in place of values.

    Numbers, strings, booleans, None and tuples of them stand for themselves, so that they can be
    sorted and compared; a class or a function is its name; anything else is a text that says how
    to make it. Different values that would read alike are numbered in the order of the points:
    "Net", "Net (2)".
    """
    known: dict[tuple[str, object], dict] = {}  # values that read alike, and their numbers
    labelled = []
    for params in points:
        row = {}
        for name, value in params.items():
            label = _label(value)
            if not _is_plain(value):
                same = known.setdefault((name, label), {})
                number = same.setdefault(identity(value), len(same) + 1)
                label = label if number == 1 else f"{label} ({number})"
            row[name] = label
        labelled.append(row)
    return labelled


def identity(value) -> str | int:
    """Return what is equal for equal values: a fingerprint, or else the object's own id."""
    try:
        return fingerprint(value)
    except Unreadable:
        return id(value)


def _is_plain(value) -> bool:
    """Say whether a value can stand in a table as it is."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | np.generic)


def _label(value):
    """Return a plain value as it is, and words for any other."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is tuple and _is_plain(value):
        return tuple(map(_label, value))
    return value if _is_plain(value) else _words(value)


def _words(value) -> str:
    """Return how a value is made, in a few words."""
    if isinstance(value, functools.partial):
        given = [*map(_words, value.args), *_pairs(value.keywords)]
        return f"{_words(value.func)}({', '.join(given)})"
    if isinstance(getattr(value, "__name__", None), str):
        return value.__name__
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        parts = ", ".join(map(_words, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_words(part)}' for key, part in value.items())}}}"
    if hasattr(value, "get_params"):
        return f"{type(value).__name__}({', '.join(_pairs(_changed(value)))})"
    text = " ".join(repr(value).split())
    return type(value).__name__ if " at 0x" in text else text  # an address says nothing


def _pairs(settings: Mapping) -> list[str]:
    """Return settings as they are written in a call."""
    return [f"{name}={_words(part)}" for name, part in settings.items()]


def _changed(value) -> dict:
    """Return the settings of an object that are not its class's defaults."""
    parameters = inspect.signature(type(value)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {
        name: part
        for name, part in vars(value).items()
        if not name.startswith("_")
        and not name.endswith("_")
        and not ((name in defaults and defaults[name] is part) or defaults.get(name) == part)
    }
