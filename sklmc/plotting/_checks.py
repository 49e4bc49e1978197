"""What Displays take and refuse: labelled models and tables, numbers that can be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import pandas as pd

from sklmc._validation import check_array, check_models, check_number, check_option
from sklmc.connectivity import PairwiseScore, check_scorer
from sklmc.models import ModelView, check_compatible, view_through

LARGEST = float(np.finfo(np.float32).max)
QUANTITIES = {  # attribute of a PairwiseScore: what its colour bar is called
    "barrier": "barrier",
    "epsilon": "epsilon",
    "calibrated_barrier": "calibrated barrier",
}


def split_models(models, caller: str, n: int | None = None) -> tuple[list | None, list]:
    """Return labels and models of a dict, None and models of a list; `n` says how many."""
    labels = list(models) if isinstance(models, Mapping) else None
    models = check_models(models if labels is None else list(models.values()), caller)
    if n is not None and len(models) != n:
        raise ValueError(f"{caller}: 'models' must hold {n} models, got {len(models)}.")
    return check_labels(labels, caller, len(models), "models", optional=True), models


def score_models(
    models, X, y, scorer, caller: str, n: int | None = None, **defaults
) -> tuple[list | None, PairwiseScore]:
    """Return labels and scores of models; `defaults` are those of the scorer."""
    scorer = check_scorer(scorer, caller, **defaults)
    labels, models = split_models(models, caller, n)
    return labels, scorer.pairwise(models, X, y)


def name_models(labels: list | None, n: int) -> list[str]:
    """Return what n models are called in messages."""
    return [f"models[{key!r}]" for key in (range(n) if labels is None else labels)]


def split_pair(models, X, caller: str) -> tuple[list | None, list[ModelView], object]:
    """Return labels, views of two models of one architecture, and what both see of X."""
    labels, models = split_models(models, caller, 2)
    names = name_models(labels, 2)
    pair, _, X = view_through(models, X, caller, names)
    check_compatible(pair, caller, names)
    return labels, pair, X


def split_frames(
    frame, caller: str, label: str, columns: Sequence[str], source: str
) -> dict[str, pd.DataFrame]:
    """Return tables by label, several under one label below each other; a bare one gets `label`."""
    frames = frame if isinstance(frame, Mapping) else {label: frame}
    joined = {}
    for key, given in frames.items():
        parts = list(given) if isinstance(given, (list, tuple)) else [given]
        if not parts:
            raise ValueError(f"{caller}: 'frame' holds no frame under {key!r}.")
        for part in parts:
            check_frame(part, caller, "frame", columns, source)
        joined[key] = pd.concat(parts, keys=range(len(parts)), names=["pair"])
    return check_frames(joined, caller, "frame", columns, source)


def check_frames(
    frames, caller: str, name: str, columns: Sequence[str], source: str
) -> dict[str, pd.DataFrame]:
    """Return a dict of label to table, at least one."""
    if not isinstance(frames, dict):
        raise TypeError(f"{caller}: '{name}' must be a dict, got {type(frames).__name__}.")
    if not frames:
        raise ValueError(f"{caller}: '{name}' is empty; pass at least one.")
    for frame in frames.values():
        check_frame(frame, caller, name, columns, source)
    return frames


def check_layer(layer, caller: str) -> None:
    """Refuse what is neither None nor the name of one layer."""
    if layer is not None:
        check_text(layer, caller, "layer")


def rows_of_layer(frame: pd.DataFrame, layer, caller: str, default: int) -> pd.DataFrame:
    """Return the rows of one layer; None takes the layer at place `default`."""
    check_layer(layer, caller)
    layers = list(frame.layer.unique())
    if layer is not None and layer not in layers:
        raise ValueError(
            f"{caller}: 'layer' must be one of {layers!r}, which the frame holds, got {layer!r}."
        )
    return frame[frame.layer == (layers[default] if layer is None else layer)]


def check_pairs(scores, quantity: str, caller: str) -> np.ndarray:
    """Return one matrix of a PairwiseScore."""
    if not isinstance(scores, PairwiseScore):
        raise TypeError(
            f"{caller}: 'scores' must be a PairwiseScore, got {type(scores).__name__}; "
            "LMCScorer().pairwise(models, X, y) gives one."
        )
    check_option(quantity, QUANTITIES, caller, "quantity")
    matrix = getattr(scores, quantity)
    if matrix is None:
        raise ValueError(f"{caller}: there is no {quantity!r}; set 'calibration' of the LMCScorer.")
    return matrix


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


def check_labels(
    labels, caller: str, n: int, name: str = "labels", optional: bool = False
) -> list | None:
    """Return n labels, as many as there are things to be named; None only if that is optional."""
    if labels is None and optional:
        return None
    if isinstance(labels, (str, bytes, Mapping, Set, type)) or not isinstance(labels, Iterable):
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
