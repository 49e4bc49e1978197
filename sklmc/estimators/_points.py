"""The points of a parameter grid, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from sklmc.estimators._arguments import check_arguments, nearest
from sklmc.estimators._labels import identity
from sklmc.estimators._members import inner_net
from sklmc.estimators._net import ArrayNet


def list_points(param_grid) -> list[dict]:
    """Return the points of a grid in ParameterGrid's order; each once."""
    if not isinstance(param_grid, ParameterGrid):
        dicts = [param_grid] if isinstance(param_grid, Mapping) else list(param_grid)
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
        listed = [
            {
                name: values if isinstance(values, list | tuple | range | np.ndarray) else [values]
                for name, values in part.items()
            }
            for part in dicts
        ]
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
    nets = [f"{key}__" for key, part in known.items() if isinstance(part, ArrayNet)]
    if isinstance(population, ArrayNet):
        nets.append("")  # a net knows its module's arguments, which it does not list
    for name in params:
        if name in ("random_state", "verbose"):
            raise ValueError(
                f"ModelGrid: {name!r} cannot be in 'param_grid': every member gets its own."
            )
        if name not in known and not name.startswith(tuple(nets)):
            raise ValueError(
                f"ModelGrid: {name!r} is no parameter of {type(population).__name__}."
                f"{nearest(name, known)}"
            )
    population.set_params(**params)
    net = inner_net(population)
    if isinstance(net, ArrayNet):
        net._check_parameters()
        check_arguments(net.module, "module", net._given("module"), "ModelGrid")
    return population
