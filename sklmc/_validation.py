"""Checks of plain values, with messages that name the caller, the parameter and the remedy."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Sequence

import numpy as np

from sklmc._sklearn import _num_samples


def check_alpha(value, caller: str, name: str = "alpha") -> float:
    """Return `value` as a float in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{caller}: '{name}' must be a number in [0, 1], got {value!r}.")
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{caller}: '{name}' must lie in [0, 1] (0 is model A, 1 is model B), got {value!r}."
        )
    return float(value)


def check_integer(value, caller: str, name: str, minimum: int) -> int:
    """Return `value` as an int that is at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{caller}: '{name}' must be an integer, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{caller}: '{name}' must be at least {minimum}, got {value!r}.")
    return int(value)


def check_weights(weights, n: int, caller: str, name: str = "weights") -> np.ndarray:
    """Return `weights` as n non-negative floats that sum to one; None means equal weights."""
    if weights is None:
        return np.full(n, 1.0 / n)
    try:
        given = np.asarray(weights)
        if given.dtype.kind not in "biufO" or not all(map(_is_number, given.flat)):
            raise TypeError
        values = given.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{caller}: '{name}' must be a sequence of {n} numbers, got {weights!r}."
        ) from None
    if values.shape != (n,):
        raise ValueError(
            f"{caller}: '{name}' must hold one number per model ({n}), got shape {values.shape}."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{caller}: '{name}' must be finite and not negative, got {weights!r}.")
    largest = values.max()
    if largest <= 0:
        raise ValueError(f"{caller}: '{name}' sum to {largest!r}; at least one must be positive.")
    values = values / largest  # first, so that the sum of huge weights is finite
    return values / values.sum()


def check_option(value, options: Iterable, caller: str, name: str):
    """Return `value` if it is one of `options`; otherwise offer them, the nearest first."""
    options = list(options)
    for option in options:
        alike = type(value) is type(option) or (isinstance(value, str) and isinstance(option, str))
        if value is option or (alike and value == option):
            return option
    text = ", ".join(repr(option) for option in options)
    message = f"{caller}: '{name}' must be one of {text}, got {value!r}."
    if isinstance(value, str):
        near = difflib.get_close_matches(value, [o for o in options if isinstance(o, str)], n=1)
        if near:
            message += f" Did you mean {near[0]!r}?"
    raise ValueError(message)


def check_same_length(X, y, caller: str) -> None:
    """Refuse X and y of different length."""
    n_x, n_y = _num_samples(X), _num_samples(y)
    if n_x != n_y:
        raise ValueError(
            f"{caller}: 'X' and 'y' must have the same length, got {n_x} and {n_y} samples."
        )


def check_models(models, caller: str, minimum: int = 1, name: str = "models") -> list:
    """Return a list of at least `minimum` models; a single model instead of a list is refused."""
    a_list = isinstance(models, (Sequence, np.ndarray)) and not isinstance(models, (str, bytes))
    if hasattr(models, "parameters") or not (a_list or isinstance(models, Iterable)):
        raise TypeError(
            f"{caller}: '{name}' must be a list of models, got {type(models).__name__}; "
            "put the models into a list."
        )
    models = list(models)
    if len(models) < minimum:
        raise ValueError(
            f"{caller}: '{name}' must hold at least {minimum} model{'s' if minimum > 1 else ''}, "
            f"got {len(models)}."
        )
    return models


def _is_number(value) -> bool:
    """Say whether a value is a number, and no text that could be read as one."""
    return isinstance(value, (numbers.Number, np.generic))
