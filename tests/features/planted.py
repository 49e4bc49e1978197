"""Pairs of nets on scikit-learn's digits, each with one planted reason for its barrier."""

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklmc import NetClassifier, PermutationAligner
from sklmc.models import view
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry


@functools.cache
def data():
    """1,000 images to train on, 797 to explain on."""
    X, y = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(X))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    return X[:1000], y[:1000], X[1000:], y[1000:]


def trained(seed, max_epochs=15, lr=0.005, module=MLP, **arguments):
    X, y, _, _ = data()
    arguments = {f"module__{name}": value for name, value in arguments.items()}
    net = NetClassifier(
        module, max_epochs=max_epochs, lr=lr, batch_size=64, random_state=seed, **arguments
    )
    return net.fit(X, y)


def two(seed, **arguments):
    return [trained(2 * seed + k, **arguments) for k in (0, 1)]


def noisy(net, seed, size):
    """A copy whose weights are off by a share of their spread."""
    look, generator = view(net, caller="planted"), torch.Generator().manual_seed(seed)
    return look.rebuild(
        {
            name: t + size * t.std() * torch.randn(t.shape, generator=generator)
            if t.is_floating_point() and t.numel() > 1
            else t
            for name, t in look.state.items()
        }
    )


class OrderCounts(nn.Module):
    """A net whose hidden units cannot be permuted."""

    def __init__(self, n_features=64, n_outputs=10, width=32):
        super().__init__()
        self.a, self.b = nn.Linear(n_features, width), nn.Linear(width, width)
        self.c = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = torch.cumsum(torch.relu(self.a(x)), 1) / 8
        return self.c(torch.relu(self.b(x)).flip(1))


def under_trained(seed):
    """B saw one epoch at a tenth of the learning rate."""
    return trained(2 * seed, width=32, depth=2), trained(
        2 * seed + 1, max_epochs=1, lr=0.0005, width=32, depth=2
    )


def not_aligned(seed):
    """B is A with noise, its units in another order."""
    a = trained(seed, width=32, depth=2)
    symmetry = discover_symmetry(a)
    return a, symmetry.apply(noisy(a, seed, 0.1), symmetry.random_permutation(seed))


def local_optimum(seed):
    """B is A with noise, one of its three hidden layers in another order."""
    a = trained(seed, width=32, depth=3)
    symmetry = discover_symmetry(a)
    group = symmetry.groups[seed % 3].name
    perm = symmetry.random_permutation(seed)[group]
    return a, symmetry.apply(noisy(a, seed, 0.1), {group: perm})


def variance_collapse(seed):
    """Deep nets, aligned by their weights."""
    a, b = two(seed, width=160, depth=5, lr=0.001, max_epochs=12)
    return a, PermutationAligner().fit_transform(a, b)


def logit_scale(seed):
    """Bias-free nets that use different halves of the hidden units."""
    made = []
    for half, part in enumerate(two(seed, width=32, depth=3, bias=False)):
        net = MLP(64, 10, width=64, depth=3, bias=False)
        pairs = zip(net.layers[::2], part.module_.layers[::2])
        place = slice(32 * half, 32 * half + 32)
        with torch.no_grad():
            for depth, (new, old) in enumerate(pairs):
                new.weight.zero_()
                rows = place if depth < 3 else slice(None)
                new.weight[rows, place if depth > 0 else slice(None)] = old.weight
        made.append(net)
    return made


def stale_batch_norm(seed):
    """B is A with noise; its running statistics are those of no data."""
    a = trained(2 * seed, width=64, depth=2, norm="batch", lr=0.002)
    b = noisy(a, seed, 0.05)
    for name, tensor in b.module_.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.fill_(float(name.endswith("running_var")))
    return a, b


def frozen_symmetry(seed):
    """Independent nets in which the order of units counts."""
    return two(seed, module=OrderCounts)


def different_features(seed):
    """Nets too narrow to hold the same features, aligned as well as may be."""
    a, b = two(seed, width=8, depth=3, max_epochs=40)
    X, y, _, _ = data()
    return a, PermutationAligner("auto", random_state=0).fit_transform(a, b, X, y)


SITUATIONS = (
    under_trained,
    not_aligned,
    local_optimum,
    variance_collapse,
    logit_scale,
    stale_batch_norm,
    frozen_symmetry,
    different_features,
)
