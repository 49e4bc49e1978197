"""The parameters of a grid as tables show them: the same words for the same value everywhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sklmc.models import Unreadable, fingerprint


def label_points(points: Sequence[Mapping]) -> list[dict]:
    """Return the points of a grid with labels in place of values.

    Numbers, strings, booleans, None and tuples of them stand for themselves, so that they can be
    sorted and compared; a class or a function is its name; anything else is a text that says how
    to make it. Different values that would read alike are numbered in the order of the points:
    "Net", "Net (2)".
    """
    known: dict[tuple[str, object], list] = {}
    labelled = []
    for params in points:
        row = {}
        for name, value in params.items():
            label = _label(value)
            if not _is_plain(value):
                same = known.setdefault((name, label), [])
                key = identity(value)
                if key not in same:
                    same.append(key)
                place = same.index(key) + 1
                label = label if place == 1 else f"{label} ({place})"
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
