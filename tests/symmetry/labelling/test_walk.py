"""Values that are equal along an axis tie nothing: constants, and what is spread."""

from __future__ import annotations

import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._labelling import _walk
from tests.symmetry.rules.claimed import groups_around, true_groups
from tests.symmetry.zoo import Net


def test_what_is_spread_over_two_layers_does_not_make_them_one():
    def forward(net, x):
        mean = x.mean(1, keepdim=True).expand(-1, 6)
        return net.b((net.a(x) + mean).relu()) + net.d((net.c(x) * mean).relu())

    parts = {"a": nn.Linear(3, 6), "b": nn.Linear(6, 2), "c": nn.Linear(3, 6), "d": nn.Linear(6, 2)}
    assert true_groups(Net(forward, **parts), torch.randn(8, 3)) == [(6, 1), (6, 1)]


def test_where_labels_do_not_settle_nothing_moves(monkeypatch):
    monkeypatch.setattr(_walk, "MAX_PASSES", 1)
    net = Net(lambda net, x: net.b(net.a(x)), a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    symmetry = discover_symmetry(net, torch.randn(8, 3), verify=False)
    assert symmetry.groups == ()
    assert "the labels did not settle" in {frozen.reason for frozen in symmetry.frozen}


def test_a_constant_of_two_equal_values_fixes_nothing():
    assert groups_around(lambda x: x * torch.tensor([0.5, 0.5]).to(x), (2,)) == [(2, 1)]
    assert groups_around(lambda x: x * torch.tensor([0.5, 1.5]).to(x), (2,)) == []
