"""Measures of nets that are built in seldom ways, and targets that a measure cannot take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.features import error_bound, inverse_temperatures, stitch_models
from sklmc.features._redundancy._plain_units import plain_units
from sklmc.models import Arrays, view
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


class Scale(nn.Module):
    """Holds a tensor that its owner uses without calling it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Module()
        self.inner.gain = nn.Parameter(torch.rand(4))


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.scale, self.unused = Scale(), Scale()
        self.block = Block()

    def forward(self, x):
        return self.last(self.block(self.first(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = Scale()

    def forward(self, x):
        return x * self.scale.inner.gain


def test_tensor_of_a_part_that_its_owner_uses_goes_with_the_owner():
    torch.manual_seed(0)
    a, b = Owner(), Owner()
    state = stitch_models(a, b, 1, X).state_dict()
    assert torch.equal(state["block.scale.inner.gain"], a.block.scale.inner.gain)
    assert torch.equal(state["last.weight"], b.last.weight)
    ends = [stitch_models(a, b, layer, X).state_dict() for layer in (0, 2)]
    assert torch.equal(ends[0]["block.scale.inner.gain"], b.block.scale.inner.gain)
    assert torch.equal(ends[1]["block.scale.inner.gain"], a.block.scale.inner.gain)


@pytest.mark.parametrize("measure", [error_bound, inverse_temperatures])
def test_measure_of_labels_refuses_floats(measure):
    net = MLP(3, 2, width=4)
    with pytest.raises(ValueError, match=f"{measure.__name__}: 'y' holds floats"):
        measure(net, net, X.numpy(), np.linspace(0, 1, 40).reshape(20, 2))


def reasons(net, x):
    symmetry = discover_symmetry(net, x, verify=False)
    found, refused = plain_units(view(net, caller="test"), symmetry, Arrays(x))
    return [units.group for units in found], set(refused.values())


class Twice(nn.Module):
    """One weight, used by two names."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(F.relu(self.a(x)) + F.relu(self.b(x)))


def test_units_of_a_tied_tensor_are_not_plain():
    found, refused = reasons(Twice(), X)
    assert found == []
    assert any("is tied to another tensor" in reason for reason in refused)


def test_units_of_a_transposed_convolution_are_not_plain():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.ReLU(), nn.ConvTranspose2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )
    found, refused = reasons(net, torch.randn(2, 1, 4, 4))
    assert found == []
    assert refused


def test_units_behind_two_norms_are_not_plain():
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)
    )
    found, refused = reasons(net.eval(), X)
    assert found == []
    assert any("several norms stand behind its layer" in reason for reason in refused)


def test_units_that_no_layer_uses_are_not_plain():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x):
            return F.relu(self.a(x)).sum(dim=1, keepdim=True)

    found, refused = reasons(Summed(), X)
    assert found == []
    assert refused == {"no linear or convolutional layer uses its units"}


def test_norm_over_the_units_of_two_layers_is_not_plain():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x):
            return self.c(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], dim=1))))

    found, refused = reasons(Joined().eval(), X)
    assert found == []
    assert refused == {"'norm' norms other units as well"}
