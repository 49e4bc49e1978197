from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from sklmc import NetRegressor
from tests.estimators.modules import Squeezed


def small(**parameters):
    return NetRegressor(**{"module__width": 8, "max_epochs": 3, "random_state": 0, **parameters})


def test_predict_returns_the_shape_of_y(moons, targets):
    X, _ = moons
    flat = small().fit(X, targets)
    column = small().fit(X, targets[:, None])
    three = small().fit(X, np.stack([targets] * 3, axis=1))
    assert flat.predict(X).shape == (96,)
    assert column.predict(X).shape == (96, 1)
    assert three.predict(X).shape == (96, 3)
    assert np.array_equal(flat.predict(X), column.predict(X)[:, 0])


@pytest.mark.parametrize(
    "dtype, expected", [("float64", "float64"), ("float32", "float32"), ("int64", "float32")]
)
def test_predictions_have_the_float_type_of_y(dtype, expected, moons, targets):
    net = small().fit(moons[0], (10 * targets).astype(dtype))
    assert net.predict(moons[0]).dtype == expected


def test_learns_a_smooth_function(moons, targets):
    net = NetRegressor(random_state=0, max_epochs=100).fit(moons[0], targets)
    assert net.score(moons[0], targets) > 0.95
    assert net.score(moons[0], targets) == r2_score(targets, net.predict(moons[0]))


def test_loss_is_the_mean_over_samples_and_outputs(moons, targets):
    """Targets with one axis against outputs with two would broadcast to all pairs."""
    net = small(batch_size=-1, lr=0.0, max_epochs=1).fit(moons[0], targets)
    expected = np.mean((net.predict(moons[0]) - targets) ** 2)
    assert net.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-5)


def test_module_that_returns_one_axis(moons, targets):
    net = NetRegressor(Squeezed, batch_size=-1, lr=0.0, max_epochs=1, random_state=0)
    net.fit(moons[0], targets)
    assert net.predict(moons[0]).shape == (96,)
    assert net._model_target(targets).shape == (96,)
    expected = np.mean((net.predict(moons[0]) - targets) ** 2)
    assert net.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-5)


def test_model_target_has_the_shape_of_the_outputs(moons, targets):
    net = small().fit(moons[0], targets)
    assert net._model_target(targets).shape == net.forward(moons[0]).shape
    assert net._model_target(torch.from_numpy(targets)).dtype == np.float32
    with pytest.raises(ValueError, match="fitted on targets of shape"):
        net._model_target(targets[:, None])


def test_no_probabilities(moons, targets):
    assert not hasattr(small().fit(moons[0], targets), "predict_proba")


@pytest.mark.parametrize(
    "y, match",
    [
        (np.full(96, np.nan), "contains NaN"),
        (np.full(96, 1e300), "infinity or a value too large"),
        (np.array(["a"] * 96), "could not convert string"),
        (np.zeros((96, 2, 2)), "dim 3"),
        (None, "requires y to be passed"),
    ],
)
def test_bad_targets_are_refused(y, match, moons):
    with pytest.raises(ValueError, match=match):
        small().fit(moons[0], y)
