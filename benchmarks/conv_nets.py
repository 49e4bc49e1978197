"""Two small convolutional nets with batch norm for CIFAR-10: a chain and a residual one."""

from __future__ import annotations

import torch
from torch import nn

from sklmc.nets import ResNet20

CHANNELS = (32, 64, 128, 128)


class ConvNet(nn.Module):
    """Four 3 x 3 convolutions, each with batch norm and ReLU, halving after the first three."""

    def __init__(self, n_channels: int = 3, n_outputs: int = 10):
        super().__init__()
        layers: list[nn.Module] = []
        n_in = n_channels
        for place, n_out in enumerate(CHANNELS):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)] if place < 3 else [nn.ReLU()]
            n_in = n_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(n_in, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        return self.classifier(self.features(x))


class ResNet8(ResNet20):
    """ResNet20 with the first block of each stage only: 16, 32 and 64 channels, batch norm."""

    def __init__(self, n_channels: int = 3, n_outputs: int = 10):
        super().__init__(n_channels=n_channels, n_outputs=n_outputs, norm="batch")
        self.blocks = nn.Sequential(*self.blocks[::3])
