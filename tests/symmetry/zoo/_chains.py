"""Nets of layers in a row, and small residual ones."""

from __future__ import annotations

import torch
from torch import nn

from tests.symmetry.zoo._entries import Net, entry, images


@entry((7, 1), (9, 1))
def mlp():
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 3))
    return net, (torch.randn(8, 5),)


@entry((7, 1), (9, 1))
def mlp_norms():
    first = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3)]
    second = [nn.Linear(7, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 3)]
    return nn.Sequential(*first, *second), (torch.randn(8, 5),)


@entry((5, 1), (7, 1))
def conv_batch_norm():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 7, 3),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 4),
    )
    return net, images()


@entry((6, 1), (5, 1))
def depthwise():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    return net, images()


@entry((6, 1), (8, 1))
def two_branches():
    def forward(net, x):
        return net.out(torch.cat([net.a(x).relu(), net.b(x).relu()], 1))

    net = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(5, 8), out=nn.Linear(14, 3))
    return net, (torch.randn(8, 5),)


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(5, 8), nn.Linear(8, 3)
        self.up = nn.ModuleList(nn.Linear(8, 12) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(12, 8) for _ in range(2))

    def forward(self, x):
        x = self.inp(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.out(x)


@entry((8, 1), (12, 1), (12, 1))
def residual_mlp():
    return ResidualMLP(), (torch.randn(8, 5),)


@entry((5, 1))
def conv_flatten():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4))
    return net, images()


@entry((8, 1))
def linear_used_twice():
    def forward(net, x):
        x = net.inp(x)
        return net.out(net.twice(net.twice(x).relu()).relu())

    net = Net(forward, inp=nn.Linear(5, 8), twice=nn.Linear(8, 8), out=nn.Linear(8, 3))
    return net, (torch.randn(8, 5),)
