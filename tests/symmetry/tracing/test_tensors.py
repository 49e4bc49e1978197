"""What cannot be moved is refused: what quantises, and tensors without entries of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao.nn import quantized

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._tracing._tensors import constant_digests
from tests.symmetry.zoo import Net


def test_what_may_be_quantised_later_is_taken_and_what_quantises_is_not():
    def forward(net, x):
        return net.b(net.sum.add(net.a(x), net.a(x).tanh()))

    parts = {"a": nn.Linear(3, 5), "b": nn.Linear(5, 2)}
    net = Net(forward, sum=quantized.FloatFunctional(), **parts)
    assert [group.size for group in discover_symmetry(net, torch.randn(8, 3)).groups] == [5]
    net = Net(forward, sum=quantized.QFunctional(), **parts)
    with pytest.raises(SymmetryError, match=r"module 'sum' .* quantises"):
        discover_symmetry(net, torch.randn(8, 3))


def test_constants_are_told_under_every_name_and_others_are_not_told():
    net = nn.BatchNorm1d(4)
    net.register_buffer("table", torch.arange(3))
    net.register_buffer("again", net.table)
    net.register_buffer("angles", torch.rand(2), persistent=False)
    net.register_buffer("number", torch.tensor(3))
    found = constant_digests(net)
    assert set(found) == {"table", "again", "angles"}
    assert found["table"] == found["again"] != found["angles"]
    net.table[0] = 5
    assert constant_digests(net)["again"] != found["again"]
