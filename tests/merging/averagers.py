"""Small averagers and what they are fitted on."""

import numpy as np

from sklmc import NetClassifier, WeightAverager
from sklmc.models import view

X = np.random.default_rng(0).normal(size=(120, 3))
CODES = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
Y = np.array(["no", "yes"])[CODES]
VALUES = X[:, 0] - 2 * X[:, 1]


def net(**parameters):
    return NetClassifier(**{"module__width": 8, "max_epochs": 4, **parameters})


def averager(n_estimators=2, **parameters):
    inner = parameters.pop("estimator", None) or net()
    return WeightAverager(inner, n_estimators, **{"random_state": 0, **parameters})


def bits(model):
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]
