from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import DataLoader, Subset, TensorDataset

from sklmc._torch import seeded
from sklmc.estimators._net_data import array_batches, may_leave_one

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)


def same_batches(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for (x, y), (x_loader, y_loader) in zip(ours, theirs):
        assert torch.equal(x, x_loader)
        assert torch.equal(y.to(y_loader.dtype), y_loader.reshape(y.shape))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
@pytest.mark.parametrize("y", [Y, None])
def test_without_shuffle_batches_are_those_of_a_data_loader(size, drop_last, y):
    dataset = Dataset(X, y)
    options = {"batch_size": size, "drop_last": drop_last}
    ours = array_batches(DataLoader, dataset, options)
    same_batches(ours, DataLoader(dataset, **options))
    assert len(ours) == len(list(ours))


def test_subset_gives_its_rows():
    subset = Subset(Dataset(X, Y), [7, 1, 4])
    same_batches(
        array_batches(DataLoader, subset, {"batch_size": 2}), DataLoader(subset, batch_size=2)
    )


def test_order_is_one_randperm():
    batches = array_batches(DataLoader, Dataset(X, Y), {"batch_size": 4, "shuffle": True})
    with seeded(5):
        rows = torch.cat([y for _, y in batches])
        rest = torch.rand(1)
    with seeded(5):
        assert torch.equal(rows, torch.randperm(10))
        assert torch.equal(rest, torch.rand(1))


def test_batches_are_copies():
    data = X.copy()
    for x, _ in array_batches(DataLoader, Dataset(data, Y), {"batch_size": 4}):
        x.zero_()
    assert np.array_equal(data, X)


class OtherLoader(DataLoader):
    pass


class OtherDataset(Dataset):
    def transform(self, X, y):
        return -X, y


@pytest.mark.parametrize(
    "iterator, dataset, options",
    [
        (OtherLoader, Dataset(X, Y), {}),
        (DataLoader, OtherDataset(X, Y), {}),
        (DataLoader, TensorDataset(torch.from_numpy(X)), {}),
        (DataLoader, Dataset({"x": X}, Y), {}),
        (DataLoader, Dataset(X, Y), {"num_workers": 0}),
    ],
)
def test_what_only_the_loader_can_do_is_left_to_it(iterator, dataset, options):
    assert array_batches(iterator, dataset, {"batch_size": 2, **options}) is None


@pytest.mark.parametrize(
    "n_samples, options, answer",
    [
        (9, {"batch_size": 4}, True),
        (10, {"batch_size": 4}, False),
        (1, {"batch_size": 4}, False),
        (9, {"batch_size": 1}, False),
        (9, {"batch_size": 4, "drop_last": False}, False),
    ],
)
def test_a_last_batch_of_one(n_samples, options, answer):
    assert may_leave_one(options, n_samples) is answer
