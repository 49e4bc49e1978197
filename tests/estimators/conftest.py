from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_moons


@pytest.fixture(scope="session")
def moons():
    X, y = make_moons(96, noise=0.1, random_state=0)
    X.flags.writeable = y.flags.writeable = False
    return X, y


@pytest.fixture
def targets(moons):
    X, _ = moons
    return np.sin(2 * X[:, 0]) + X[:, 1]
