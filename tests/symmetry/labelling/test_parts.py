"""Parameters of which forward uses pieces that overlap."""

from __future__ import annotations

import numpy as np
import pytest
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


@pytest.mark.parametrize(
    "first, second, groups",
    [
        (np.s_[:4], np.s_[4:], [(5, 1), (5, 1)]),  # rows: two tensors, each with its own columns
        (np.s_[::2], np.s_[1::2], [(5, 1)]),  # every other row: one tensor, so one order
        (np.s_[:-4], np.s_[-4:], [(5, 1), (5, 1)]),
    ],
)
def test_only_stretches_of_rows_are_tensors_of_their_own(first, second, groups):
    def forward(net, x):
        parts = F.linear(net.a(x), net.packed[first]), F.linear(net.c(x), net.packed[second])
        return torch.cat(parts, 1)

    torch.manual_seed(0)
    layers = {name: nn.Linear(3, 5) for name in "ac"}
    net = Net(forward, packed=nn.Parameter(torch.randn(8, 5)), **layers)
    assert true_groups(net, torch.randn(8, 3)) == groups


def test_stretches_of_columns_are_one_tensor():
    def forward(net, x):
        return F.linear(net.a(x), net.packed[:, :5]) + F.linear(net.c(x), net.packed[:, 5:])

    torch.manual_seed(0)
    layers = {"a": nn.Linear(3, 5), "c": nn.Linear(3, 3)}
    net = Net(forward, packed=nn.Parameter(torch.randn(4, 8)), **layers)
    assert true_groups(net, torch.randn(8, 3)) == [(3, 1), (5, 1)]
