"""Nets whose channels come in groups."""

from __future__ import annotations

import torch
from torch import nn

from tests.symmetry.zoo._entries import Net, entry, images


@entry((2, 1), (4, 2), (6, 1))
def group_norm():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return net, images()


@entry((4, 1), (2, 4), (3, 4))
def grouped_conv():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    return net, images()


@entry((2, 1), (4, 2), (4, 1))
def group_norm_over_concatenation():
    def forward(net, x):
        x = torch.cat([net.a(x), net.b(x)], 1)
        return net.out(net.norm(x).relu().mean((2, 3)))

    net = Net(
        forward,
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(3, 4, 3),
        norm=nn.GroupNorm(3, 12),
        out=nn.Linear(12, 4),
    )
    return net, images()


@entry((6, 1), (9, 1))
def instance_norm_prelu():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.PReLU(6),
        nn.Conv2d(6, 9, 3),
        nn.PReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(9, 4),
    )
    return net, images()


@entry((6, 1), (3, 2))
def conv_transpose():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
    )
    return net, images()


@entry((4, 1))
def pixel_shuffle():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return net, images()


@entry((5, 1))
def pixel_unshuffle():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.PixelUnshuffle(2), nn.Conv2d(20, 2, 1))
    return net, images()


@entry((4, 2), (2, 1), (2, 1), (2, 4), (3, 2))
def channel_shuffle():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.ChannelShuffle(2),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    return net, images()


@entry((6, 1))
def upsample():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ReLU(),
        nn.Conv2d(6, 2, 3, padding=1, padding_mode="reflect"),
    )
    return net, images()
