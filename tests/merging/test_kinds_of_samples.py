"""Estimators that set samples aside take dicts and Datasets as they take arrays."""

import numpy as np
import pytest
import skorch.dataset
import torch
from sklearn.base import clone
from torch.utils.data import DataLoader, TensorDataset

from sklmc import DeepEnsemble, GreedySoup, ModelGrid, NetClassifier, SWAEnsembler, WeightAverager

X = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)
# one batch: a Dataset and an array are shuffled in other orders
NET = NetClassifier(
    module__width=4,
    module__n_features=2,
    module__n_outputs=2,
    max_epochs=2,
    batch_size=-1,
    random_state=0,
)
TENSORS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
KINDS = {
    "dict": ({"x": X}, Y),
    "Dataset": (TENSORS, None),
    "skorch Dataset": (skorch.dataset.Dataset({"x": X}, Y), None),
    "Dataset and y": (TENSORS, Y),
}
ESTIMATORS = [
    DeepEnsemble(NET, 2, random_state=0),
    WeightAverager(NET, 2, random_state=0),
    GreedySoup(NET, {"lr": [0.01, 0.02]}, random_state=0),
    SWAEnsembler(NET, random_state=0),
]


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_samples_of_any_kind_give_the_same_estimator(estimator, kind):
    samples, labels = KINDS[kind]
    found = clone(estimator).fit(samples, labels)
    expected = clone(estimator).fit(X, Y)
    np.testing.assert_allclose(found.predict_proba(samples), expected.predict_proba(X), atol=1e-4)


def test_a_grid_trains_on_a_dataset():
    found = ModelGrid(NET, {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0).fit(TENSORS)
    expected = ModelGrid(NET, {"lr": [0.01, 0.02]}, n_estimators=2, random_state=0).fit(X, Y)
    ours, theirs = (grid.summary(X, Y).select_dtypes("number") for grid in (found, expected))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    "samples, labels, error, said",
    [
        (
            TensorDataset(torch.from_numpy(X)),
            None,
            ValueError,
            r"must be pairs \(X, y\) where y is",
        ),
        (DataLoader(TENSORS), None, ValueError, "WeightAverager requires y"),
        (DataLoader(TENSORS), Y, TypeError, "got DataLoader: samples must be set aside"),
        (
            TensorDataset(TENSORS.tensors[0], TENSORS.tensors[1] + 1),
            None,
            ValueError,
            "encode them",
        ),
        ({"x": X[:9]}, Y, ValueError, "must have the same length, got 9 and 80"),
        ({"x": X[:0]}, Y[:0], ValueError, "holds no sample"),
    ],
)
def test_what_rows_cannot_be_taken_from_is_refused(samples, labels, error, said):
    with pytest.raises(error, match=said):
        WeightAverager(NET, 2, random_state=0).fit(samples, labels)
