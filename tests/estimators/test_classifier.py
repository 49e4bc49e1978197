from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import nn

from sklmc import NetClassifier
from tests.estimators.modules import Softmax


def small(**parameters):
    return NetClassifier(**{"module__width": 8, "max_epochs": 3, "random_state": 0, **parameters})


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["ja", "nein"]),
        np.array(["ja", "nein"], dtype=object),
        np.array([False, True]),
        np.array([-3, 7]),
        np.array([1.0, 2.0]),
    ],
)
def test_labels_come_back_as_they_were(labels, moons):
    X, y = moons
    codes = small().fit(X, y)
    net = small().fit(X, labels[y])
    assert net.classes_.tolist() == labels.tolist()
    assert net.predict(X).dtype == labels.dtype
    assert np.array_equal(net.predict(X), labels[codes.predict(X)])
    assert np.array_equal(net.predict_proba(X), codes.predict_proba(X))
    assert np.array_equal(net._model_target(labels[y]), y)
    assert net._model_target(labels[y]).dtype == np.int64


def test_series_and_list_labels(moons):
    X, y = moons
    expected = small().fit(X, y).predict_proba(X)
    assert np.array_equal(small().fit(X, pd.Series(y)).predict_proba(X), expected)
    assert np.array_equal(small().fit(X, y.tolist()).predict_proba(X), expected)
    assert np.array_equal(small().fit(X, torch.tensor(y)).predict_proba(X), expected)


@pytest.mark.parametrize("dtype", ["str", "category", object])
def test_series_of_strings(dtype, moons):
    X, y = moons
    labels = pd.Series(np.array(["ja", "nein"])[y], dtype=dtype)
    net = small().fit(X, labels)
    assert net.classes_.tolist() == ["ja", "nein"]
    assert set(net.predict(X)) <= {"ja", "nein"}
    assert np.array_equal(net._model_target(labels), y)
    assert 0 <= net.score(X, labels) <= 1


def test_probabilities_are_the_softmax_of_the_logits(moons):
    net = small().fit(*moons)
    logits = net.forward(moons[0])
    assert torch.equal(torch.from_numpy(net.predict_proba(moons[0])), logits.softmax(-1))


def test_learns_three_blobs():
    X, y = make_blobs(150, centers=3, random_state=0, cluster_std=0.5)
    assert NetClassifier(random_state=0).fit(X, y).score(X, y) > 0.98


def test_single_logit_for_two_classes(moons):
    net = small(criterion=nn.BCEWithLogitsLoss, max_epochs=20).fit(*moons)
    assert net.module_.layers[-1].out_features == 1
    probabilities = net.predict_proba(moons[0])
    assert probabilities.shape == (96, 2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert net.score(*moons) > 0.8
    positive = net.forward(moons[0])[:, 0].sigmoid().numpy()
    assert np.allclose(probabilities[:, 1], positive)


def test_module_with_probabilities_and_nll(moons):
    net = NetClassifier(Softmax, criterion=nn.NLLLoss, max_epochs=30, random_state=0).fit(*moons)
    assert net.score(*moons) > 0.75
    assert np.allclose(net.predict_proba(moons[0]).sum(axis=1), 1)


def test_classes_name_labels_that_the_data_lack(moons):
    X, y = moons
    net = small(classes=["z", "x", "y"]).fit(X, np.array(["x", "y"])[y])
    assert net.classes_.tolist() == ["z", "x", "y"]
    assert net.predict_proba(X).shape == (96, 3)
    assert set(net.predict(X)) <= {"x", "y"}


def test_partial_fit_takes_classes_once(moons):
    X, y = moons
    net = small().partial_fit(X[y == 0], y[y == 0], classes=[0, 1])
    assert net.classes_.tolist() == [0, 1]
    net.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"labels that the net does not know \(5\)"):
        net.partial_fit(X, np.where(y == 1, 5, 0))


@pytest.mark.parametrize(
    "y, match",
    [
        (np.zeros(96), "one class"),
        (np.linspace(0, 1, 96), "Unknown label type"),
        (np.zeros((96, 2)), "1d array"),
        (None, "requires y to be passed"),
        (np.where(np.arange(96) < 5, np.nan, np.arange(96) % 2), "contains NaN"),
    ],
)
def test_bad_targets_are_refused(y, match, moons):
    with pytest.raises(ValueError, match=match):
        small().fit(moons[0], y)


def test_classes_must_be_two_and_hold_all_labels(moons):
    with pytest.raises(ValueError, match="one class"):
        small(classes=[1]).fit(*moons)
    with pytest.raises(ValueError, match=r"does not know \(0\); it knows \[1, 2\]"):
        small(classes=[1, 2]).fit(*moons)


def test_unknown_label_has_no_code(moons):
    net = small().fit(*moons)
    with pytest.raises(ValueError, match=r"does not know \('a'\)"):
        net._model_target(["a", "a"])


def test_no_classes_before_fit():
    with pytest.raises(AttributeError, match="before it is fitted"):
        _ = NetClassifier(classes=[0, 1]).classes_
