"""Samples by part: what each net's owner has, joined into one X with a note of whose each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import ConcatDataset, Dataset

BY_PART = ("own", "labels")  # targets that need to know whose a sample is


def split_by_part(X, y, target: str, n_parts: int, caller: str) -> tuple:
    """Return X and y in one, and whose each sample is: everyone's (None) but for some targets."""
    return join_parts(X, y, n_parts, caller) if target in BY_PART else (X, y, None)


def is_by_part(X) -> bool:
    """Say whether X is a list of the samples of several parts, and not of samples."""
    return isinstance(X, list) and all(
        isinstance(one, (Mapping, tuple, Dataset)) or getattr(one, "ndim", 0) > 1 for one in X
    )


def join_parts(X, y, n_parts: int, caller: str) -> tuple:
    """Return the samples of all parts in one, their labels, and the number of each one's part."""
    if not isinstance(X, (list, tuple)) or len(X) != n_parts:
        seen = f"{len(X)} parts" if isinstance(X, (list, tuple)) else f"{type(X).__name__}"
        raise ValueError(
            f"{caller}: 'X' must be a list of {n_parts} parts, the samples of each net in the "
            f"order of the nets, got {seen}."
        )
    if y is not None and (not isinstance(y, (list, tuple)) or len(y) != n_parts):
        raise ValueError(
            f"{caller}: 'y' must be a list of {n_parts} parts like 'X', or None, got "
            f"{type(y).__name__}."
        )
    lengths = [_length(one) for one in X]
    for k, n in enumerate(lengths):
        if n == 0:
            raise ValueError(f"{caller}: 'X[{k}]' holds no sample; leave that net out.")
        if y is not None and len(y[k]) != n:
            raise ValueError(
                f"{caller}: 'X[{k}]' holds {n} samples and 'y[{k}]' {len(y[k])} labels; pass one "
                "label per sample."
            )
    joined = _join(X, caller, "X")
    labels = None if y is None else _join([np.asarray(one) for one in y], caller, "y")
    part = torch.repeat_interleave(torch.arange(n_parts), torch.tensor(lengths))
    return joined, labels, part


def _length(one) -> int:
    """Return the number of samples of one part."""
    if isinstance(one, (Mapping, tuple)):
        values = list(one.values()) if isinstance(one, Mapping) else list(one)
        return len(values[0])
    return len(one)


def _join(parts: Sequence, caller: str, name: str):
    """Return samples of one kind in one."""
    first = parts[0]
    kinds = {type(one).__name__ for one in parts}
    try:
        if isinstance(first, Mapping):
            return {key: _join([one[key] for one in parts], caller, name) for key in first}
        if isinstance(first, tuple):
            columns = zip(*parts, strict=True)
            return tuple(_join(column, caller, name) for column in columns)
        if isinstance(first, Dataset):
            return ConcatDataset(parts)
        if isinstance(first, (pd.DataFrame, pd.Series)):
            return pd.concat(parts, ignore_index=True)
        if isinstance(first, torch.Tensor):
            return torch.cat(list(parts))
        return np.concatenate([np.asarray(one) for one in parts])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{caller}: the parts of '{name}' ({', '.join(sorted(kinds))}) cannot be joined: "
            f"{error}; pass all of one kind and width."
        ) from None
