"""What nets say of bad parameters, bad data and training that fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from sklmc import NetClassifier, NetRegressor
from sklmc.exceptions import SklmcWarning
from sklmc.nets import MLP
from tests.estimators.nets import NETS, small


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    "parameters, error, match",
    [
        ({"module": MLP(2, 2)}, TypeError, r"'module' is an instance \(MLP\).*module__width"),
        ({"module": 3}, ValueError, "'module' parameter of Net.* must be a callable"),
        ({"max_epoch": 3}, ValueError, "'max_epoch' is no parameter.*'max_epochs'"),
        ({"width": 3}, ValueError, "'width' is no parameter.*'module__width'"),
        ({"module__widht": 3}, TypeError, "MLP takes no argument 'widht'.*mean 'width'"),
        ({"optimizer__moment": 0.9}, TypeError, "'optimizer__moment' is set, but Adam"),
        ({"criterion__weights": 1}, TypeError, "'criterion__weights' is set"),
        ({"callbacks__log__sink": print}, ValueError, "no callback of that name.*'print_log'"),
        ({"lr": -1.0}, ValueError, "'lr' parameter of Net"),
        ({"batch_size": 0}, ValueError, "'batch_size' parameter of Net"),
        ({"dtype": "int8"}, ValueError, "'dtype' parameter of Net"),
        ({"module__width": 0}, ValueError, "'width' must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_named_in_fit(kind, parameters, error, match, moons):
    net = kind(**parameters)
    with pytest.raises(error, match=match):
        net.fit(*moons)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    "change, error, match",
    [
        (lambda X: np.where(X > 0, np.nan, X), ValueError, "contains NaN"),
        (lambda X: np.where(X > 0, np.inf, X), ValueError, "contains infinity"),
        (lambda X: X * 1e300, ValueError, "too large for dtype"),
        (lambda X: X * 1j, ValueError, "[Cc]omplex"),
        (lambda X: X[:0], ValueError, "0 sample"),
        (lambda X: X[:, :0], ValueError, "0 feature"),
        (lambda X: X[:, 0], ValueError, "Expected 2D array"),
        (lambda X: X[:5], ValueError, "inconsistent numbers of samples"),
        (lambda X: X.astype(str) + "a", ValueError, "convert string"),
    ],
)
def test_bad_data_are_refused(kind, change, error, match, moons):
    X, y = moons
    with pytest.raises(error, match=match):
        small(kind).fit(change(X), y)


@pytest.mark.parametrize("kind", NETS)
def test_predict_refuses_other_widths_and_unfitted_nets(kind, moons):
    X, y = moons
    with pytest.raises(NotFittedError):
        small(kind).predict(X)
    net = small(kind).fit(X, y)
    with pytest.raises(ValueError, match="X has 1 features"):
        net.predict(X[:, :1])
    with pytest.raises(ValueError, match="X has 1 features"):
        net.partial_fit(X[:, :1], y)


def test_what_forward_cannot_take_is_named(moons):
    with pytest.raises(TypeError, match="fit got 'mask', which is handed to the module"):
        small().fit(*moons, mask=np.ones(96))


@pytest.mark.parametrize("kind", NETS)
def test_divergence_is_said(kind, moons):
    with pytest.warns(SklmcWarning, match="diverged, 'layers.0.weight' is no longer finite"):
        small(kind, optimizer=torch.optim.SGD, lr=1e30, max_epochs=5).fit(*moons)


def test_single_sample_under_batch_norm_is_explained(moons):
    with pytest.raises(ValueError, match=r"cannot take a batch of shape \(1, 2\)"):
        small(NetRegressor, module__norm="batch").fit(moons[0][:1], moons[1][:1])


@pytest.mark.parametrize("kind", NETS)
def test_output_of_another_size_is_refused(kind, moons):
    with pytest.raises(ValueError, match=r"the module returns .*module__"):
        small(kind, module__n_outputs=7).fit(*moons)


def test_lambda_builds_a_module(moons):
    def build(n_features, n_outputs):
        return nn.Sequential(nn.Linear(n_features, 3), nn.Tanh(), nn.Linear(3, n_outputs))

    assert NetClassifier(build, max_epochs=1).fit(*moons).module_[0].in_features == 2
