"""What Displays refuse: numbers that cannot be drawn, keywords that are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from sklmc._validation import check_array, check_number

LARGEST = float(np.finfo(np.float32).max)


def check_keywords(caller: str, **given) -> None:
    """Refuse keywords for an artist that are no dict."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"{caller}: '{name}' must be a dict of keywords, got {value!r}.")


def check_finite_number(value, caller: str, name: str) -> None:
    """Refuse what is neither None nor a number that matplotlib can scale."""
    if value is not None:
        check_number(value, caller, name, -LARGEST, LARGEST)


def check_text(value, caller: str, name: str) -> str:
    """Return `value` if it is text."""
    if not isinstance(value, str):
        raise TypeError(f"{caller}: '{name}' must be text, got {value!r}.")
    return value


def check_labels(labels, caller: str, n: int, name: str = "labels") -> list:
    """Return n labels, as many as there are things to be named."""
    if isinstance(labels, (str, bytes, Mapping, type)) or not isinstance(labels, Iterable):
        raise TypeError(f"{caller}: '{name}' must be a list of {n} names, got {labels!r}.")
    labels = list(labels)
    if len(labels) != n:
        raise ValueError(f"{caller}: '{name}' must hold {n} names, got {len(labels)}.")
    if not all(isinstance(label, (str, int, float, np.generic)) for label in labels):
        raise TypeError(f"{caller}: '{name}' must hold texts or numbers, got {labels!r}.")
    return labels


def check_square(matrix, caller: str, name: str = "matrix") -> np.ndarray:
    """Return a matrix with one row and one column for each model."""
    n = len(check_array(matrix, caller, name, (None, None)))
    return check_array(matrix, caller, name, (n, n))


def check_frame(
    frame, caller: str, name: str, columns: Sequence[str], source: str, rows: bool = True
) -> pd.DataFrame:
    """Return a table that has these columns, and `rows`; `source` makes such tables."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{caller}: '{name}' must be a DataFrame as {source} gives it, got "
            f"{type(frame).__name__}."
        )
    lacking = [column for column in columns if column not in frame.columns]
    if lacking:
        raise ValueError(
            f"{caller}: '{name}' has no column {lacking[0]!r}; it must come from {source}."
        )
    if frame.empty and rows:
        raise ValueError(f"{caller}: '{name}' holds no rows.")
    return frame
