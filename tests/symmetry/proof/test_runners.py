"""Dropout within recurrent layers is off while a graph is run; how outputs are compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._proof._runners import _batch_norm, output_change, scales
from tests.symmetry.zoo import Net


def test_recurrent_layers_with_dropout_are_proved_in_both_modes():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    net = Net(lambda net, x: net.b(net.a(x)[0]), a=layer, b=nn.Linear(4, 2))
    symmetry = discover_symmetry(net, torch.randn(4, 2, 3))
    assert [group.size for group in symmetry.groups] == [4, 4]
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert symmetry.evidence["failed"] == {}


def test_whole_numbers_must_stay_and_the_outputs_behind_them_count_as_well():
    whole, real = torch.tensor([1, 2]), torch.tensor([4.0, 2.0])
    assert output_change([whole, real], [whole, real]) == 0.0
    assert output_change([whole, real], [whole, real + 1]) == 0.25
    assert output_change([whole, real], [whole + 1, real]) == float("inf")


def test_whole_numbers_do_not_tell_how_large_the_outputs_are():
    """An output is measured by its largest value, tiny ones by a part of the largest of all."""
    assert scales([torch.tensor([3]), torch.tensor([1e-9])]) == pytest.approx([1e-13, 1e-9])
    assert scales([torch.tensor([8.0]), torch.tensor([1e-9])]) == pytest.approx([8.0, 8e-4])
    assert scales([torch.tensor([3])]) == [1.0]
    infinite = torch.tensor([2.0, float("inf"), float("nan")])
    assert scales([infinite, infinite[1:]]) == pytest.approx([2.0, 2e-4])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_batch_norm_with_derivatives_computes_what_torch_does(training, with_weight, with_bias):
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    weight, bias, mean, var = torch.rand(4, 3, dtype=torch.float64).add(0.5)
    given = (weight if with_weight else None, bias if with_bias else None)
    rest = (training, 0.1, 1e-5, False)
    wanted = torch.batch_norm(x, *given, mean.clone(), var.clone(), *rest)
    before = mean.clone()
    found = _batch_norm(x, *given, mean.requires_grad_(), var.requires_grad_(), *rest)
    torch.testing.assert_close(found, wanted)
    assert found.requires_grad != training
    assert torch.equal(mean.detach(), before)


def test_pairs_are_seen_as_complex_numbers_however_memory_lies():
    """A trace drops `contiguous` where it had nothing to do; wide kernels lay out otherwise."""

    def forward(net, x):
        h = net.b(net.a(x).transpose(1, 2)).transpose(1, 2)
        pairs = torch.view_as_complex(h.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * pairs).flatten(1)

    net = Net(forward, a=nn.Conv1d(2, 4, 1), b=nn.BatchNorm1d(6))
    symmetry = discover_symmetry(net, torch.randn(8, 2, 6))
    assert symmetry.evidence["failed"] == {}
