"""Small nets with batch norm, and data."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.merging.averagers import X, Y, averager


def randomised(module, seed):
    """Give every tensor of a module numbers of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.2 if name.endswith("running_var") else values)
    return module.eval()


def dense(seed, norm=nn.BatchNorm1d):
    """Two hidden layers with batch norm."""
    return randomised(
        nn.Sequential(
            *(nn.Linear(3, 5), norm(5), nn.ReLU()),
            *(nn.Linear(5, 4), norm(4), nn.ReLU()),
            nn.Linear(4, 2),
        ),
        seed,
    )


class Residual(nn.Module):
    """Convolutions, a residual addition, and one norm that is called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.inner = nn.Conv2d(3, 3, 3, padding=1)
        self.shared = nn.BatchNorm2d(3, momentum=None)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = self.shared(x + self.shared(self.inner(x)))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(1.0, 2.0, size=(60, 3)).astype(np.float32)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(20, 1, 5, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    """An averager of three nets."""
    return averager(3).fit(X, Y)
