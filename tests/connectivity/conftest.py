"""Small trained and random nets on which paths are scored."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from sklmc import NetClassifier
from sklmc._torch import seeded
from sklmc.nets import MLP


@pytest.fixture(scope="session")
def moons():
    return make_moons(120, noise=0.15, random_state=0)


@pytest.fixture(scope="session")
def nets(moons):
    """Four nets that differ by seed."""
    return [
        NetClassifier(module__width=8, max_epochs=10, random_state=seed).fit(*moons)
        for seed in range(4)
    ]


@pytest.fixture
def data():
    """Random inputs (60, 7) and labels of three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 7)).astype(np.float32), rng.integers(0, 3, size=60)


@pytest.fixture
def make_mlps():
    """Return a maker of random nets 7-width-3 whose norms have statistics of their own."""

    def make(n=3, seed=0, scale=2.0, **arguments):
        with seeded(seed):
            modules = [MLP(7, 3, **{"width": 6, **arguments}) for _ in range(n)]
            for module in modules:
                for name, tensor in module.state_dict().items():
                    if name.endswith("running_var"):
                        tensor.copy_(torch.rand_like(tensor) + 0.5)
                    elif tensor.is_floating_point():
                        tensor.copy_(scale * tensor + 0.1 * torch.randn_like(tensor))
        return modules

    return make
