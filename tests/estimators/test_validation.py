"""A validation set in hand: labels and numbers as they are handed to fit."""

from __future__ import annotations

import numpy as np
import pytest
from skorch.callbacks import EarlyStopping, EpochScoring
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch.utils.data import Subset

from sklmc import DeepEnsemble, NetClassifier, NetRegressor
from tests.estimators.nets import small

NAMES = np.array(["moon", "other"])


def losses(net):
    return net.history[:, ("train_loss", "valid_loss")]


@pytest.mark.parametrize("labels", [NAMES, np.array([2, 5]), np.array([True, False])])
def test_labels_of_a_validation_set_are_encoded_as_those_of_fit(labels, moons):
    """Without that, strings crash in torch and numbers are taken for other classes."""
    X, y = moons
    order = np.argsort(labels)  # codes follow the sorted labels
    codes = np.argsort(order)[y]
    named, coded = (
        small(
            train_split=predefined_split(Dataset(X[60:], target[60:])),
            callbacks=[EarlyStopping(), EpochScoring("f1_macro", name="f1")],
        ).fit(X[:60], target[:60])
        for target in (labels[y], codes)
    )
    assert losses(named) == losses(coded)
    assert named.history[:, ("valid_acc", "f1")] == coded.history[:, ("valid_acc", "f1")]


def test_vectorized_members_validate_on_it_too(moons):
    X, y = moons
    net = NetClassifier(max_epochs=2, train_split=predefined_split(Dataset(X[60:], NAMES[y[60:]])))
    ensembles = [
        DeepEnsemble(net, n_estimators=2, vectorize=vectorize, random_state=0).fit(
            X[:60], NAMES[y[:60]]
        )
        for vectorize in (True, False)
    ]
    for one, other in zip(*(ensemble.estimators_ for ensemble in ensembles)):
        assert np.allclose(losses(one), losses(other), rtol=1e-5)  # sums are rounded otherwise


def test_a_part_of_a_dataset_validates(moons):
    X, y = moons
    data = Dataset(X, NAMES[y])
    nets = [
        small(train_split=predefined_split(valid)).fit(X[:60], NAMES[y[:60]])
        for valid in (Subset(data, list(range(60, 96))), Dataset(X[60:], NAMES[y[60:]]))
    ]
    assert losses(nets[0]) == losses(nets[1])
    assert data.y[0] in NAMES


def test_regressors_validate_on_targets_of_one_axis(moons, targets):
    X, _ = moons
    valid = Dataset(X[60:], targets[60:])
    net = small(NetRegressor, train_split=predefined_split(valid)).fit(X[:60], targets[:60])
    again = np.mean((net.predict(X[60:]) - targets[60:]) ** 2)
    assert net.history[-1, "valid_loss"] == pytest.approx(again, rel=1e-5)  # float32


def test_unknown_labels_are_named_with_where_they_are(moons):
    X, y = moons
    net = small(train_split=predefined_split(Dataset(X, y)))
    with pytest.raises(ValueError, match="labels that the net does not know") as caught:
        net.fit(X, NAMES[y])
    assert "'train_split'" in caught.value.__notes__[0]
