"""Samples kept from training, to judge by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import is_classifier
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from sklmc._sklearn import _num_samples, _safe_indexing, check_random_state
from sklmc._validation import check_same_length, check_sample_weight
from sklmc.estimators._members import Data
from sklmc.estimators._net_data import check_codes, read_labels, readable


def hold_out(
    data: Data, fraction: float | None, estimator, seed: int, caller: str
) -> tuple[Data, Data, np.ndarray]:
    """Return what to train on, what to judge by, and which rows are kept from training.

    Where none is, what was trained on judges. Rows of weight zero stay in training, which leaves
    them out but for their labels.
    """
    X, y, weights = data
    weights = check_sample_weight(weights, _num_samples(y), caller)
    judging = _safe_indexing(y, np.flatnonzero(weights)) if weights is not None else y
    rng = check_random_state(seed)
    train, kept = split_rows(judging, fraction, is_classifier(estimator), rng)
    if weights is not None:
        kept = np.flatnonzero(weights)[kept]
        train = np.setdiff1d(np.arange(len(weights)), kept)
    data = Data(X, y, weights)
    return take_rows(data, train), take_rows(data, kept if len(kept) else train), kept


def take_rows(data: Data, rows: np.ndarray) -> Data:
    """Return some rows of training data."""
    return Data(*(None if part is None else _rows_of(part, rows) for part in data))


def _rows_of(part, rows: np.ndarray):
    """Return some rows of an array, of all arrays in a dict or tuple, or of a Dataset."""
    if isinstance(part, Mapping):
        return {name: _safe_indexing(values, rows) for name, values in part.items()}
    if isinstance(part, tuple):
        return tuple(_safe_indexing(values, rows) for values in part)
    return Subset(part, rows.tolist()) if isinstance(part, Dataset) else _safe_indexing(part, rows)


def leave_unweighted(data: Data) -> Data:
    """Return data without the rows of weight zero."""
    if data.sample_weight is None or data.sample_weight.all():
        return data
    return take_rows(data, np.flatnonzero(data.sample_weight))


def split_rows(
    y, fraction: float | None, stratify: bool, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted rows to train on, and those kept from training (maybe none).

    The part kept is ``fraction`` of the rows, rounded, but at least one. With `stratify`, every
    class gives its share, and the last sample of a class is never taken from training.
    """
    n_rows = _num_samples(y)
    rows = np.arange(n_rows)
    if fraction is None:
        return rows, rows[:0]
    n_kept = min(max(1, round(fraction * n_rows)), n_rows - 1)
    classes = pd.factorize(np.asarray(y).ravel())[0] if stratify else np.zeros(n_rows, dtype=int)
    counts = np.bincount(classes + 1, minlength=1)  # a missing label counts as a class of its own
    order = rng.permutation(n_rows)
    kept = np.zeros(n_rows, dtype=bool)
    for label, take in enumerate(_shares(counts, n_kept)):
        kept[order[classes[order] + 1 == label][:take]] = True
    return rows[~kept], rows[kept]


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide `total` over classes in proportion, largest remainders first, one of each left."""
    room = np.maximum(counts - 1, 0)
    wanted = total * counts / counts.sum()
    shares = np.minimum(wanted.astype(int), room)
    while shares.sum() < min(total, room.sum()):
        lack = np.where(shares < room, wanted - shares, -np.inf)
        shares[lack.argmax()] += 1
    return shares


def check_rows(X, y, caller: str) -> tuple:
    """Return X and y in a form that rows can be taken from; y may lie in a Dataset."""
    if isinstance(X, Dataset) and hasattr(X, "__len__") and y is None:
        y = read_labels(X, caller)
        y = check_codes(y, caller) if y.dtype.kind in "iu" else y
    if y is None:
        raise ValueError(
            f"{caller} requires y to be passed, but the target y is None; pass labels or "
            "values, one per row of X."
        )
    if sparse.issparse(X):
        raise TypeError(f"{caller}: 'X' is sparse, and nets take none; pass X.toarray().")
    if isinstance(X, (DataLoader, IterableDataset)):
        raise TypeError(
            f"{caller}: 'X' must be array-like, a dict or a Dataset, got {type(X).__name__}: "
            "samples must be set aside for the report; pass the Dataset itself, or a dict of "
            "arrays."
        )
    y = _indexable(y, caller, "y")
    if isinstance(X, Mapping):
        X = {name: _indexable(values, caller, "X") for name, values in X.items()}
        for values in X.values():
            check_same_length(values, y, caller)
    elif not isinstance(X, Dataset):
        X = _indexable(X, caller, "X")
    first = next(iter(X.values()), ()) if isinstance(X, Mapping) else X
    if _num_samples(first) == 0:
        raise ValueError(f"{caller}: 'X' holds no sample (n_samples=0); pass at least two.")
    check_same_length(first, y, caller)
    return X, y


def _indexable(values, caller: str, name: str):
    """Return lists and data frames as they are, and anything else as an array."""
    if isinstance(values, torch.Tensor):
        return readable(values, caller, name)
    if isinstance(values, list) or hasattr(values, "iloc") or hasattr(values, "__dataframe__"):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        raise ValueError(f"{caller}: '{name}' cannot be read as one array.") from None
