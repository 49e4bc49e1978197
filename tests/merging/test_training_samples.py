"""Batch-norm statistics of averages: which samples they are taken from, of whatever kind."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import sklmc.merging._averaging_callback as averaging
from sklmc import NetClassifier
from sklmc.merging import ExponentialMovingAverage, StochasticWeightAveraging
from sklmc.merging._repairs._batch_norm import reestimate_statistics
from sklmc.merging._training_samples import training_samples
from sklmc.models import Batches, view
from tests.merging.runs import X, Y, bits, net

Z = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # blocks of other sizes are summed in another order


class Normed(nn.Module):
    """Batch norm behind a linear layer; its running mean shows which samples were seen."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())

    def mean_of(self, x):
        return self.first(torch.as_tensor(x)).mean(dim=0)


class TwoInputs(Normed):
    def forward(self, x, z):
        return super().forward(x + z)


class OneTuple(Normed):
    def forward(self, pair):
        return super().forward(pair[0] + pair[1])


class InNamedFields(Normed):
    def forward(self, z, x=None):
        return super().forward(z - x)


class Pairs(Dataset):
    """Items (x, y), read one by one."""

    def __init__(self, x=X):
        self.x = x

    def __len__(self):
        return len(Y)

    def __getitem__(self, k):
        return self.x[k], int(Y[k])


class Noisy(Pairs):
    """Augments: an item is another each time that it is read."""

    def __getitem__(self, k):
        return self.x[k] + np.float32(1e-4 * torch.randn(()).item()), int(Y[k])


class Stream(IterableDataset):
    """Has no length."""

    def __iter__(self):
        return ((x, int(y)) for x, y in zip(X, Y, strict=True))


def train(module, X, y, **options):
    options = {"train_split": None, **options}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        max_epochs=3,
        batch_size=16,
        verbose=0,
        callbacks=[("average", StochasticWeightAveraging(start=1))],
        **options,
    ).fit(X, y)


@pytest.mark.parametrize(
    "module, samples, labels, seen",
    [
        (Normed, X, Y, X),
        (TwoInputs, {"x": X, "z": Z}, Y, X + Z),
        (TwoInputs, {"z": Z, "x": X}, Y, X + Z),
        (InNamedFields, {"x": X, "z": Z}, Y, Z - X),
        (OneTuple, (X, Z), Y, X + Z),
        (Normed, Pairs(), None, X),
        (Normed, TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), None, X),
        (Normed, Stream(), None, X),
    ],
    ids=["array", "dict", "another order", "default", "tuple", "Dataset", "tensors", "no length"],
)
def test_inputs_of_any_kind_give_their_statistics(module, samples, labels, seen):
    fitted = train(module, samples, labels).module_
    torch.testing.assert_close(fitted.norm.running_mean, fitted.mean_of(seen), **ROUNDING)


def test_augmented_samples_give_statistics():
    fitted = train(Normed, Noisy(), None).module_
    torch.testing.assert_close(fitted.norm.running_mean, fitted.mean_of(X), rtol=0, atol=1e-3)


def test_validation_samples_give_none():
    fitted = train(Normed, X, Y, train_split=ValidSplit(5))
    rows = fitted.get_split_datasets(X, Y)[0].indices
    module = fitted.module_
    torch.testing.assert_close(module.norm.running_mean, module.mean_of(X[rows]), **ROUNDING)


def test_samples_without_weight_give_none():
    weights = np.arange(60) % 3.0
    average = ("average", StochasticWeightAveraging(start=2))
    for parameters in ({"train_split": None}, {"train_split": ValidSplit(5)}):
        options = {"module__norm": "batch", **parameters}
        weighted = net(average, **options).fit(X, Y, sample_weight=weights)
        rows = np.flatnonzero(weights)
        train, _ = weighted.get_split_datasets(X[rows], Y[rows])
        seen = X[rows][getattr(train, "indices", slice(None))]
        look = view(weighted, caller="test")
        again = reestimate_statistics(look, look.state, look.to_input(seen))
        for name, tensor in look.state.items():
            torch.testing.assert_close(tensor, again[name], **ROUNDING)


def as_graph(items):
    """Collate samples that point at each other: each takes its neighbour in the batch."""
    x = torch.stack([torch.as_tensor(item[0]) for item in items])
    neighbours = torch.arange(len(items)).roll(1)[:, None]
    return {"x": x, "neighbours": neighbours}, torch.tensor([item[1] for item in items])


class Graph(Normed):
    def forward(self, x, neighbours):
        return super().forward(x + x[neighbours[:, 0]])


def test_batches_that_hang_together_stay_whole():
    options = {"iterator_train__collate_fn": as_graph, "iterator_valid__collate_fn": as_graph}
    fitted = train(Graph, Pairs(), None, **options)
    look = view(fitted.module_, caller="test")
    assert isinstance(training_samples(fitted, look, Pairs()), Batches)
    neighbour = np.concatenate([np.roll(rows, 1) for rows in np.split(np.arange(60), [16, 32, 48])])
    module = fitted.module_
    seen = module.mean_of(X + X[neighbour])
    torch.testing.assert_close(module.norm.running_mean, seen, **ROUNDING)


def test_nets_of_ours_take_dicts():
    ema = ("average", ExponentialMovingAverage(0.5))
    fitted = NetClassifier(
        TwoInputs, max_epochs=2, callbacks=[ema], train_split=ValidSplit(5), random_state=0
    ).fit({"x": X, "z": Z}, Y)
    rows = fitted.get_split_datasets({"x": X, "z": Z}, Y)[0].indices
    seen = fitted.module_.mean_of((X + Z)[rows])
    torch.testing.assert_close(fitted.module_.norm.running_mean, seen, **ROUNDING)


def test_samples_lie_at_even_distances():
    fitted = net(max_epochs=1).fit(X, Y)
    look = view(fitted.module_, caller="test")
    few = training_samples(fitted, look, fitted.get_dataset(X, Y), most=4)
    np.testing.assert_array_equal(few.whole()[0].numpy(), X[[0, 20, 39, 59]])
    chosen = few[[2, 0]].whole()[0]
    np.testing.assert_array_equal(chosen.numpy(), X[[39, 0]])


def test_few_samples_serve_in_mid_training_and_all_at_its_end(monkeypatch):
    seen = []

    def spy(look, state, samples):
        seen.append(len(samples))
        return reestimate_statistics(look, state, samples)

    monkeypatch.setattr(averaging, "STATISTICS_ROWS", 20)
    monkeypatch.setattr(averaging, "reestimate_statistics", spy)
    net(("average", StochasticWeightAveraging(start=4)), module__norm="batch").fit(X, Y)
    assert seen == [20, 20, 48]


def test_statistics_of_training_may_be_left():
    options = {"module__norm": "batch", "max_epochs": 3}
    average = StochasticWeightAveraging(start=2, update_batch_norm=False)
    fitted = net(("average", average), **options).fit(X, Y)
    assert bits(fitted) == bits(net(**options).fit(X, Y))  # a mean of one
