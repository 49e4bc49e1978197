"""Small nets of every kind that counts as a model."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def chain(seed, norm=True):
    """A net with running statistics that no two seeds share."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4) if norm else nn.Identity(), nn.ReLU(), nn.Linear(4, 2)
    )
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
            else:
                tensor.fill_(seed + 5)
    return net.eval()


class Chain(nn.Module):
    """The same as a class, for skorch."""

    def __init__(self, seed=0):
        super().__init__()
        self.net = chain(seed)

    def forward(self, x):
        return self.net(x)


def skorch_net(seed, **arguments):
    """A plain skorch net after two epochs."""
    arguments = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "max_epochs": 2,
        "train_split": None,
        "verbose": 0,
        "module__seed": seed,
        **arguments,
    }
    return NeuralNetClassifier(Chain, **arguments).fit(X, Y)


def raw(tensor):
    """The bytes of a tensor of any dtype."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def snapshot(module):
    """Everything of a module that a pure function must leave alone."""
    return {
        "tensors": {n: raw(t) for n, t in module.state_dict().items()},
        "flags": [part.training for part in module.modules()],
        "grads": [None if p.grad is None else raw(p.grad) for p in module.parameters()],
        "hooks": [len(part._forward_hooks) for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "ids": [id(p) for p in module.parameters()],
    }


@pytest.fixture
def data():
    return copy.deepcopy((X, Y))
