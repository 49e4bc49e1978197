"""A group is never made one with itself."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from tests.symmetry.zoo import Net


def test_a_group_that_every_tensor_holds_twice_stays():
    """Units of a gated layer that are read twice: each tensor has two segments of them."""

    def forward(net, x):
        h = F.glu(net.a(x))
        return net.b(torch.cat([h, h.sin()], 1))

    net = Net(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    assert [group.size for group in discover_symmetry(net, torch.randn(8, 3)).groups] == [4]
