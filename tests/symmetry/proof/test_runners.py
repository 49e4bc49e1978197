"""Dropout within recurrent layers is off while a graph is run."""

from __future__ import annotations

import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from tests.symmetry.zoo import Net


def test_recurrent_layers_with_dropout_are_proved_in_both_modes():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    net = Net(lambda net, x: net.b(net.a(x)[0]), a=layer, b=nn.Linear(4, 2))
    symmetry = discover_symmetry(net, torch.randn(4, 2, 3))
    assert [group.size for group in symmetry.groups] == [4, 4]
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert symmetry.evidence["failed"] == {}
