"""Modules that stand for what users bring along."""

from __future__ import annotations

import torch
from torch import nn


class Convolutional(nn.Module):
    def __init__(self, n_channels=3, n_outputs=10, width=4):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, width, 3, padding=1)
        self.output = nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.output(self.conv(x).relu().mean((2, 3)))


class TokenClassifier(nn.Module):
    def __init__(self, n_outputs, vocabulary=10):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 4)
        self.output = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.output(self.embedding(x).mean(1))


class Squeezed(nn.Module):
    """Returns one axis where most modules return two."""

    def __init__(self, n_features):
        super().__init__()
        self.output = nn.Linear(n_features, 1)

    def forward(self, x):
        return self.output(x)[:, 0]


class Softmax(nn.Module):
    """Returns probabilities, as NLLLoss in skorch wants them."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.output = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        return self.output(x).softmax(-1)


class InPlace(nn.Module):
    """Writes into its input."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.output = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        return self.output(x.mul_(2.0))


class Noisy(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 8), nn.Dropout(0.5), nn.Linear(8, n_outputs)
        )

    def forward(self, x):
        return self.layers(x)


class Explosive(nn.Module):
    """Its weights turn to NaN in a member whose first weight is positive."""

    def __init__(self, n_features, n_outputs, always=False):
        super().__init__()
        self.always = always
        self.output = nn.Linear(n_features, n_outputs)
        self.explodes = always or bool(self.output.weight[0, 0] > 0)

    def forward(self, x):
        outputs = self.output(x)
        return outputs * torch.inf if self.explodes and self.training else outputs
