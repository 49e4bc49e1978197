"""Which layers are watched: those whose units are on one axis of what they read or give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.alignment._activation import _watched_axes, find_watched_units
from sklmc.symmetry import discover_symmetry


def watched(net, X):
    found = find_watched_units(net, discover_symmetry(net, X, verify=False))
    return [(units.layer, units.side) for units in found]


def between(part, shape):
    return nn.Sequential(
        nn.Linear(3, 6), nn.Unflatten(1, shape), part, nn.Flatten(), nn.Linear(6, 2)
    )


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_layer_norm_over_two_axes_is_not_taken_for_one_over_the_last(shape):
    net = between(nn.LayerNorm(shape), shape)
    X = torch.randn(5, 3)
    assert "2" not in {layer for layer, _ in watched(net, X)}


def test_embedding_and_layer_norm_are_watched_where_no_layer_reads_their_units():
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.norm = nn.Embedding(7, 5), nn.LayerNorm(5)

        def forward(self, x):
            return self.norm(self.embedding(x)).square().sum(-1)

    found = watched(Scored(), torch.randint(7, (4, 3)))
    assert found == [("embedding", "output"), ("norm", "output")]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_is_watched_unless_it_is_grouped(groups):
    net = nn.Sequential(
        nn.ConvTranspose2d(1, 4, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, groups=groups)
    )
    found = watched(net, torch.randn(2, 1, 3, 3))
    assert found == [("2", "input")] if groups == 1 else ("2", "input") not in found


@pytest.mark.parametrize(
    "part, x, n_axes",
    [
        (nn.Linear(3, 5), torch.randn(2, 4, 3), 3),
        (nn.Conv2d(3, 5, 2), torch.randn(2, 3, 7, 8), 4),
        (nn.ConvTranspose2d(3, 5, 2), torch.randn(2, 3, 7, 8), 4),
        (nn.BatchNorm2d(3), torch.randn(2, 3, 7, 8), 4),
        (nn.GroupNorm(1, 3), torch.randn(2, 3, 7, 8), 4),
        (nn.LayerNorm(3), torch.randn(2, 4, 3), 3),
        (nn.Embedding(9, 5), torch.randint(9, (2, 4)), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_axis_of_the_activations_is_as_long_as_that_of_the_weight(part, x, n_axes):
    """All axes but the right one have other lengths."""
    shown = {"input": x, "output": part(x)}
    axes = _watched_axes(part)
    assert axes
    for side, of_weight, dim in axes:
        assert shown[side].ndim == n_axes or side == "input"
        assert shown[side].shape[dim] == part.weight.shape[of_weight]
