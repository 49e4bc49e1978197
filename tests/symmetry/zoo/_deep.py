"""Deep image nets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.symmetry.zoo._entries import entry, images


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.transition, self.out = nn.Conv2d(18, 9, 1), nn.Linear(9, 4)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(norm(torch.cat(features, 1)).relu()))
        return self.out(self.transition(torch.cat(features, 1)).relu().mean((2, 3)))


@entry((6, 1), (4, 1), (4, 1), (4, 1), (9, 1))
def dense_net():
    return DenseNet(), images()


class BasicBlock(nn.Module):
    def __init__(self, n_in, n_out, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.pad = None
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            if shortcut == "pad":
                self.pad = (n_out - n_in) // 2
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
                )

    def forward(self, x):
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        if self.pad is not None:
            return (y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))).relu()
        return (y + self.shortcut(x)).relu()


def small_resnet(shortcut, widths=(4, 8, 16), blocks=1):
    layers: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    n_in = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(n_in, width, stride, shortcut))
            n_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 4)]
    return nn.Sequential(*layers)


@entry((4, 1), (8, 1), (16, 1), (4, 1), (8, 1), (16, 1))
def resnet_projected():
    return small_resnet("project"), images()


@entry((4, 1), (4, 1), (8, 1), (8, 1), (4, 1), (16, 1))
def resnet_padded():
    return small_resnet("pad"), images()


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@entry((8, 1), (16, 1), (12, 1), (24, 1))
def conv_next():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 2, 2),
        ConvNeXtBlock(8),
        nn.GroupNorm(1, 8),
        nn.Conv2d(8, 12, 2, 2),
        ConvNeXtBlock(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(12),
        nn.Linear(12, 4),
    )
    return net, images()
