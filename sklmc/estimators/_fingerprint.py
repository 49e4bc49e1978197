"""What a value is, in a few characters that are the same in every process."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import pickle
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch


def fingerprint(*values, source: bool = True) -> str:
    """Return 40 hexadecimal digits that differ when the values do.

    Classes and functions count with their name and, with `source`, their source code: without it
    the digits outlive a new version of the library that the class is from.
    """
    text = json.dumps([_plain(value, source) for value in values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _plain(value, source: bool):
    """Return a value as what JSON can hold, tagged by its kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), source)
    if isinstance(value, torch.dtype | torch.device | bytes | complex | slice | range):
        return [type(value).__name__, str(value)]
    if isinstance(value, pd.DataFrame):
        return ["frame", [str(name) for name in value.columns], _array(value.to_numpy())]
    if isinstance(value, pd.Series):
        return _array(value.to_numpy())
    if isinstance(value, torch.Tensor):
        return ["tensor", _array(value.detach().cpu().numpy())]
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        pairs = [[_plain(key, source), _plain(part, source)] for key, part in value.items()]
        return ["mapping", sorted(pairs, key=repr)]
    if isinstance(value, set | frozenset):
        return ["set", sorted((_plain(part, source) for part in value), key=repr)]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [_plain(part, source) for part in value]]
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", [_plain(part, source) for part in parts]]
    if isinstance(value, type) or inspect.isroutine(value):
        return _code(value, source)
    return _object(value, source)


def _array(array: np.ndarray):
    """Return shape, dtype and digest of an array."""
    if array.dtype.hasobject:
        content = pickle.dumps(array.tolist(), protocol=4)
    else:
        content = np.ascontiguousarray(array).tobytes()
    return ["array", array.dtype.str, list(array.shape), hashlib.sha256(content).hexdigest()]


def _code(value, source: bool):
    """Return the name, and a digest of the source, of a class or a function."""
    name = ["code", getattr(value, "__module__", None), getattr(value, "__qualname__", repr(value))]
    if not source:
        return name
    code = getattr(value, "__code__", None)
    text = "" if code is None else f"{code.co_code.hex()} {code.co_names} {code.co_consts}"
    if "<lambda>" not in name[2]:  # several may stand in one line of source
        with contextlib.suppress(OSError, TypeError):  # typed into a console, or built in
            text = inspect.getsource(value)
    return [*name, hashlib.sha256(text.encode()).hexdigest()]


def _object(value, source: bool):
    """Return the class and the settings of an object: its attributes, but for fitted ones."""
    try:
        settings = vars(value)
    except TypeError:  # no attributes: what it pickles to must do
        return ["object", _code(type(value), source), pickle.dumps(value, protocol=4).hex()]
    own = {name: part for name, part in settings.items() if not name.endswith("_")}
    return ["object", _code(type(value), source), _plain(own, source)]
