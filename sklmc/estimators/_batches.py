"""Mini-batches cut from arrays in one piece, where a DataLoader would gather sample by sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import skorch.dataset
import torch
from torch.utils.data import DataLoader, Subset

_OPTIONS = {"batch_size", "shuffle", "drop_last"}


class ArrayBatches:
    """Iterates over arrays in mini-batches; every batch is a copy.

    A shuffled pass takes its order from one call of ``torch.randperm(n_samples)`` on torch's
    global generator, and draws nothing else.
    """

    def __init__(self, X, y, indices, batch_size: int, shuffle: bool = False, drop_last=False):
        self.X = X
        self.y = y
        self.indices = indices
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    def __len__(self) -> int:
        n_samples = len(self.indices)
        whole, rest = divmod(n_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        indices = self.indices
        if self.shuffle:
            indices = indices[torch.randperm(len(indices)).numpy()]
        for batch in range(len(self)):
            rows = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            y = torch.zeros(len(rows)) if self.y is None else torch.from_numpy(self.y[rows])
            yield torch.from_numpy(self.X[rows]), y


def array_batches(iterator, dataset, options: dict) -> ArrayBatches | None:
    """Return the batches that `iterator` would give, or None where only it can give them."""
    if iterator is not DataLoader or not options.keys() <= _OPTIONS:
        return None
    indices = None
    if type(dataset) is Subset:
        dataset, indices = dataset.dataset, np.asarray(dataset.indices)
    if type(dataset) is not skorch.dataset.Dataset:
        return None
    X, y = dataset.X, dataset.y
    if type(X) is not np.ndarray or not (y is None or type(y) is np.ndarray):
        return None
    if indices is None:
        indices = np.arange(len(dataset))
    return ArrayBatches(X, y, indices, **options)


def may_leave_one(iterator_options: dict, n_samples: int) -> bool:
    """Say whether the last batch of a pass would hold a single sample."""
    size = iterator_options["batch_size"]
    return (
        "drop_last" not in iterator_options
        and size > 1
        and n_samples > size
        and n_samples % size == 1
    )
