"""Parameters of which forward uses pieces that overlap."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.symmetry.rules.claimed import true_groups
from tests.symmetry.zoo import Net


def test_pieces_that_are_also_used_together_have_the_same_columns():
    """The first rows read a, the next c, and both are read by e: all three move together."""

    def forward(net, x):
        first = F.linear(net.a(x), net.packed[:4])
        second = F.linear(net.c(x), net.packed[4:8])
        both = F.linear(net.e(x), net.packed[:8])
        rest = F.linear(net.g(x), net.packed[8:])
        return torch.cat([first, second, both, rest], 1)

    torch.manual_seed(0)
    layers = {name: nn.Linear(3, 5) for name in "aceg"}
    net = Net(forward, packed=nn.Parameter(torch.randn(12, 5)), **layers)
    assert true_groups(net, torch.randn(8, 3)) == [(5, 1), (5, 1)]
