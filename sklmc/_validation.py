"""Checks of plain values, with messages that name the caller, the parameter and the remedy."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sklmc._documentation import LinksDocumentation
from sklmc._sklearn import (
    InvalidParameterError,
    _num_samples,
    check_random_state,
    validate_parameter_constraints,
)

LARGEST_RATE = float(np.finfo(np.float32).max)  # learning rate that torch's optimizers can take


def _check_kind(value, kind, wanted: str, caller: str, name: str) -> None:
    """Refuse what is not of a kind; True and False are no numbers."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{caller}: '{name}' must be {wanted}, got {value!r}.")


def check_alpha(value, caller: str, name: str = "alpha") -> float:
    """Return `value` as a float in [0, 1]."""
    _check_kind(value, numbers.Real, "a number in [0, 1]", caller, name)
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{caller}: '{name}' must lie in [0, 1] (0 is model A, 1 is model B), got {value!r}."
        )
    return float(value)


def check_integer(value, caller: str, name: str, minimum: int) -> int:
    """Return `value` as an int that is at least `minimum`."""
    _check_kind(value, numbers.Integral, "an integer", caller, name)
    if value < minimum:
        raise ValueError(f"{caller}: '{name}' must be at least {minimum}, got {value!r}.")
    return int(value)


def check_weights(weights, n: int, caller: str, name: str = "weights") -> np.ndarray:
    """Return `weights` as n non-negative floats that sum to one; None means equal weights."""
    if weights is None:
        return np.full(n, 1.0 / n)
    values = _as_numbers(weights, f"{caller}: '{name}' must be a sequence of {n} numbers")
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


def _as_numbers(given, wanted: str) -> np.ndarray:
    """Return real numbers as a new array of float64; text that could be read as one is none."""
    try:
        array = np.asarray(given)
        kinds = (numbers.Number, np.bool_)
        plain = array.dtype.kind != "O" or all(isinstance(n, kinds) for n in array.flat)
        if array.dtype.kind not in "biufO" or not plain:
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{wanted}, got {given!r}.") from None


def check_sample_weight(weights, n_samples: int, caller: str) -> np.ndarray | None:
    """Return a copy of the weights of samples as float64; None stays None."""
    if weights is None:
        return None
    values = _as_numbers(weights, f"{caller}: 'sample_weight' must be a sequence of numbers")
    if values.shape != (n_samples,):
        raise ValueError(
            f"{caller}: 'sample_weight' must have shape ({n_samples},), one number per sample, got "
            f"{values.shape}."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        row = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
        raise ValueError(
            f"{caller}: 'sample_weight' must be finite and not negative, got {values[row]} in row "
            f"{row}."
        )
    if not values.any():
        raise ValueError(f"{caller}: 'sample_weight' is zero throughout; no sample would count.")
    return values


def check_option(value, options: Iterable, caller: str, name: str):
    """Return `value` if it is one of `options`; otherwise offer them, the nearest first."""
    options = list(options)
    for option in options:
        alike = type(value) is type(option) or (isinstance(value, str) and isinstance(option, str))
        if value is option or (alike and value == option):
            return option
    text = ", ".join(repr(option) for option in options)
    raise ValueError(
        f"{caller}: '{name}' must be one of {text}, got {value!r}.{did_you_mean(value, options)}"
    )


def did_you_mean(value, options: Iterable) -> str:
    """Return a sentence that offers the option most like `value`; empty where none is alike."""
    if not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, [o for o in options if isinstance(o, str)], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_constraints(constraints: Mapping, params: Mapping, caller: str) -> None:
    """Check parameters as scikit-learn does; an unknown option is answered with the nearest."""
    try:
        validate_parameter_constraints(constraints, params, caller_name=caller)
    except InvalidParameterError as error:
        hints = [
            did_you_mean(
                params[name],
                [o for one in found for o in sorted(getattr(one, "options", ()), key=str)],
            )
            for name, found in constraints.items()
            if str(error).startswith(f"The {name!r} parameter")
        ]
        error.args = (f"{error}{''.join(hints)}",)
        raise


class ChecksParameters(LinksDocumentation):
    """Mixin of estimators: parameters are checked by `check_constraints`."""

    def _validate_params(self) -> None:
        """Check what the constructor stored."""
        params = self.get_params(deep=False)
        check_constraints(self._parameter_constraints, params, type(self).__name__)


class TakesModels(ChecksParameters):
    """Mixin of estimators that are fitted to models: no table X is looked at."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


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


def check_flag(value, caller: str, name: str) -> bool:
    """Return `value` if it is True or False: what merely counts as true is a slip."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{caller}: '{name}' must be True or False, got {value!r}.")
    return bool(value)


def check_number(value, caller: str, name: str, minimum=-math.inf, maximum=math.inf) -> float:
    """Return `value` as a float between two bounds, either of them allowed; never NaN."""
    _check_kind(value, numbers.Real, "a number", caller, name)
    if not minimum <= value <= maximum:
        wanted = f"in [{minimum:g}, {maximum:g}]"
        if maximum >= LARGEST_RATE:
            wanted = "a finite number" if minimum < 0 else f"finite and at least {minimum:g}"
        raise ValueError(f"{caller}: '{name}' must be {wanted}, got {value!r}.")
    return float(value)


def check_jobs(n_jobs, caller: str) -> int | None:
    """Return a number of jobs as joblib takes it."""
    if n_jobs is None:
        return None
    _check_kind(n_jobs, numbers.Integral, "an integer or None", caller, "n_jobs")
    if n_jobs == 0:
        raise ValueError(f"{caller}: 'n_jobs' must not be 0; None means 1, -1 all processors.")
    return int(n_jobs)


def check_verbose(verbose, caller: str) -> int:
    """Return how much is to be shown."""
    return verbose if isinstance(verbose, bool) else check_integer(verbose, caller, "verbose", 0)


def check_seed(random_state, caller: str) -> np.random.RandomState:
    """Return the source of chance that a seed stands for."""
    try:
        return check_random_state(random_state)
    except (TypeError, ValueError):
        raise ValueError(
            f"{caller}: 'random_state' must be None, an integer from 0 to 2**32 - 1 or a "
            f"numpy RandomState, got {random_state!r}."
        ) from None


def check_path(path, caller: str, name: str = "path") -> Path:
    """Return a path that the system can take."""
    _check_kind(path, (str, os.PathLike), "a path", caller, name)
    if "\0" in str(path):
        raise ValueError(f"{caller}: '{name}' holds a zero byte, got {str(path)!r}.")
    return Path(path)


def check_written_path(path, caller: str) -> Path:
    """Return the path of a file that is to be written, in a folder that is there."""
    path = check_path(path, caller)
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(
            f"{caller}: 'path' must name a file in a folder that exists, got {str(path)!r}."
        )
    return path


def check_read_path(path, caller: str) -> Path:
    """Return the path of a file that is there."""
    path = check_path(path, caller)
    if not path.is_file():
        raise FileNotFoundError(
            f"{caller}: 'path' must name a file that exists, got {str(path)!r}."
        )
    return path


def check_names(names, caller: str, name: str) -> list[str]:
    """Return one name, or several, as a list of str."""
    if isinstance(names, str):
        return [names]
    listed: list = [None]
    if isinstance(names, Iterable) and not isinstance(names, (bytes, Mapping, type)):
        listed = list(names)
    if not all(isinstance(one, str) for one in listed):
        raise TypeError(f"{caller}: '{name}' must be a name or a list of names, got {names!r}.")
    return listed


def check_mapping(value, caller: str, name: str) -> Mapping:
    """Return `value` if it is a dict or another mapping."""
    _check_kind(value, Mapping, "a dict", caller, name)
    return value


def check_array(values, caller: str, name: str, shape: Sequence[int | None]) -> np.ndarray:
    """Return `values` as an array of real numbers of this shape; None is any length but zero."""
    text = " x ".join("n" if length is None else str(length) for length in shape)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{caller}: '{name}' must be an array of numbers ({text}), got "
            f"{type(values).__name__} of dtype {array.dtype}."
        )
    fits = len(array.shape) == len(shape) and all(
        seen > 0 if length is None else seen == length for seen, length in zip(array.shape, shape)
    )
    if not fits:
        raise ValueError(f"{caller}: '{name}' must have shape {text}, got {array.shape}.")
    return array
