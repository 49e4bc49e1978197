"""The samples that a skorch net is trained on, read again for their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import Subset

from sklmc.models import Arrays, Batches, Inputs, Items, ModelView, tensors_in
from sklmc.models._reading import to_args

PROBE_ROWS = 8  # samples that show what batches are like


def training_samples(net, look: ModelView, dataset, most: int | None = None) -> Inputs:
    """Return the samples of a dataset as a net reads them, not shuffled.

    `most` takes so many at even distances. They are read when they are needed, through the net's
    own iterator (its ``collate_fn``, for example), so that augmented samples are others in
    each pass. Batches that cannot be joined stay whole.
    """
    if not hasattr(dataset, "__len__"):
        return Batches(lambda: _read(net, look, dataset), _count)
    n_rows = len(dataset) if most is None else min(most, len(dataset))
    rows = np.linspace(0, len(dataset) - 1, n_rows).round().astype(np.int64)
    if not _may_be_joined(look, list(_read(net, look, _rows_of(dataset, rows[:PROBE_ROWS])))):
        return Batches(lambda: _read(net, look, _rows_of(dataset, rows)), _count)

    def fetch(chosen: list[int]) -> tuple:
        first, *others = _read(net, look, _rows_of(dataset, rows[chosen]))
        return Arrays(*first).join(others).args

    return Items(n_rows, fetch)


def _read(net, look: ModelView, dataset) -> Iterator[tuple]:
    """Yield the arguments that the module gets, batch by batch."""
    for x, *_ in net.get_iterator(dataset, training=False):
        if isinstance(x, (torch.Tensor, Mapping)):
            yield to_args(look, x if isinstance(x, Mapping) else (x,))
        else:  # skorch hands a tuple to forward as one argument
            yield (tuple(x),)


def _may_be_joined(look: ModelView, batches: list[tuple]) -> bool:
    """Say whether batches are rows of the same arrays, which can be cut anywhere."""
    if not all(isinstance(part, torch.Tensor) for args in batches for part in args):
        return False
    return isinstance(look.to_input([*batches]), Arrays)


def _rows_of(dataset, rows: np.ndarray) -> Subset:
    """Return some samples; a subset of a subset is one of the whole, which is read in one piece."""
    if type(dataset) is Subset:
        return Subset(dataset.dataset, [int(dataset.indices[row]) for row in rows])
    return Subset(dataset, rows.tolist())


def _count(args: tuple) -> int:
    """Return the number of samples of a batch."""
    return len(next(tensors_in(args)))
