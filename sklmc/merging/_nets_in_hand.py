"""Fitted nets as the parameter of an estimator: what stands for them, and how they stay fitted."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from sklearn.base import BaseEstimator

from sklmc._sklearn import FrozenEstimator, check_is_fitted
from sklmc.estimators._cell import Cell
from sklmc.models import ensemble_members, list_models


def read_nets(
    given, caller: str, parameter: str = "estimator", reserved: Collection[str] = ()
) -> tuple[list[str], list]:
    """Return names and models of nets in hand, whatever stands for them.

    Pairs (name, model), as scikit-learn's ensembles take them; what `cross_validate` returns; a
    cell of a ModelGrid; or what `list_models` reads: a list, an ensemble, a pair of a model and
    states. A FrozenEstimator may hold any of these. No net may have a `reserved` name.
    """
    if isinstance(given, FrozenEstimator):
        given = given.estimator
    if isinstance(given, Mapping):
        if "estimator" not in given:
            raise ValueError(
                f"{caller}: '{parameter}' is a dict without 'estimator', got {list(given)!r}; "
                "pass what cross_validate(..., return_estimator=True) returns."
            )
        given = given["estimator"]
    if isinstance(given, Cell):
        given = given.estimators
    if _is_named(given):
        names = [name for name, _ in given]
        if len(set(names)) < len(names):
            raise ValueError(f"{caller}: '{parameter}' has a name twice, got {names!r}.")
        if taken := sorted(set(names).intersection(reserved)):
            raise ValueError(
                f"{caller}: '{parameter}' calls a net {taken[0]!r}, as a row of the report is "
                "called; give it another name."
            )
        return names, list_models([model for _, model in given], caller, name=parameter)
    if not holds_nets(given, caller):
        if hasattr(given, "estimator"):  # an ensemble, which has nets once it is fitted
            kind = type(given).__name__
            check_is_fitted(given, msg=f"{caller}: '{parameter}' is a {kind} that is not fitted.")
        raise TypeError(
            f"{caller}: '{parameter}' must hold fitted nets (a list, pairs (name, net), a fitted "
            f"ensemble), got {type(given).__name__}."
        )
    models = list_models(given, caller, name=parameter)
    return [f"member_{index}" for index in range(len(models))], models


def holds_nets(given, caller: str) -> bool:
    """Say whether something stands for several nets."""
    if isinstance(given, (list, tuple, np.ndarray, Mapping, Cell)):
        return True
    return ensemble_members(given, caller) is not None


def first_net(given):
    """Return one of the nets in hand, for what all have in common; what is none as it is."""
    if isinstance(given, FrozenEstimator):
        given = given.estimator
    if isinstance(given, Mapping):
        given = given.get("estimator", given)
    if isinstance(given, Cell):
        given = given.estimators
    if isinstance(given, (list, tuple)) and len(given):
        return given[0][1] if _is_named(given) else given[0]
    return given


def clone_around_nets(estimator: BaseEstimator, name: str = "estimator") -> BaseEstimator:
    """Return a clone that shares the fitted nets of one parameter, as a FrozenEstimator would."""
    held = copy.copy(estimator)
    setattr(held, name, FrozenEstimator(getattr(estimator, name)))
    made = BaseEstimator.__sklearn_clone__(held)
    setattr(made, name, getattr(estimator, name))
    return made


def _is_named(given) -> bool:
    """Say whether these are pairs (name, model)."""
    return (
        isinstance(given, Sequence)
        and not isinstance(given, (str, bytes))
        and len(given) > 0
        and all(isinstance(one, (tuple, list)) and len(one) == 2 for one in given)
        and all(isinstance(one[0], str) for one in given)
    )
