"""Nets of sites, their samples, and a merge in rounds from one end to the other."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sklmc.merging import MomentsRequest, SiteCoordinator, SiteMoments, site_moments
from sklmc.nets import MLP
from tests.merging.conftest import Residual, dense, randomised

SITES = ["Bern", "Graz", "Lyon"]
SIZES = (260, 320, 280)  # any two of them are enough for a refit without a warning


def images(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 1, 5, 5))


def rows(n, seed):
    """Rows of a site, about a centre of its own."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=3) + rng.normal(size=(n, 3))


def conv(seed):
    """Convolution, batch norm, and a convolution whose norm stands behind a ReLU."""
    return randomised(
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 3, 2, bias=False), nn.ReLU(), nn.BatchNorm2d(3)),
            *(nn.Flatten(), nn.Linear(12, 2)),
        ),
        seed,
    )


def mlp(seed, norm=None):
    return randomised(MLP(3, 2, width=6, depth=2, norm=norm), seed)


class Attending(nn.Module):
    """A layer of a transformer, and a head on the mean of its tokens."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layer(x).mean(dim=1))


class Repeated(nn.Module):
    """A layer that is called twice, with another one between its calls."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.between = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.twice(self.first(x).relu()).relu()
        return self.head(self.twice(self.between(x).relu()).relu())


def tokens(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 3, 4))


# name -> (a net of a seed, samples of a size and a seed)
FAMILIES = {
    "mlp": (mlp, rows),
    "layer norm": (lambda seed: mlp(seed, "layer"), rows),
    "batch norm": (dense, rows),
    "conv": (conv, images),
    "attention": (lambda seed: randomised(Attending(), seed), tokens),
    "repeated": (lambda seed: randomised(Repeated(), seed), rows),
    "residual": (lambda seed: randomised(Residual(), seed), images),
}


def make(family, sizes=SIZES):
    """Return one net in float64 for each site, and its samples."""
    net, samples = FAMILIES[family]
    nets = [net(seed).double() for seed in range(len(sizes))]
    return nets, [samples(n, 10 + k) for k, n in enumerate(sizes)]


def start(family="mlp", sizes=SIZES, **options):
    """Return a coordinator of three sites, and the samples of each by name."""
    nets, X = make(family, sizes)
    coordinator = SiteCoordinator(nets, X[0][:4], sites=SITES[: len(sizes)], **options)
    return coordinator, dict(zip(SITES, X))


def answer(coordinator, site, X, y=None, request=None, **options):
    """Return the answer of one site, through bytes both ways."""
    request = MomentsRequest.from_bytes((request or coordinator.next_request()).to_bytes())
    net = coordinator.models_[coordinator.sites.index(site)]
    found = site_moments(request, net, X, y, site=site, **options)
    return SiteMoments.from_bytes(found.to_bytes())


def finish(coordinator, X, y=None):
    """Let all sites that are waited for answer, round by round, and return the merged net."""
    while coordinator.next_request() is not None:
        for site in coordinator.waiting_for_:
            labels = None if y is None else y[site]
            coordinator.add(answer(coordinator, site, X[site], labels))
    return coordinator.merge()


def largest_gap(a, b):
    """Return the largest difference between two nets' tensors, relative to the largest entry."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    gaps = [float((one - two).abs().max() / two.abs().max().clamp_min(1)) for one, two in pairs]
    return max(gaps)


def same_bits(a, b):
    """Say whether two nets hold the same."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)
