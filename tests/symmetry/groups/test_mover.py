"""Mover: entries come to their places, whatever the size, the kind of axis or the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._groups._mover import CACHED, LARGE, Mover, _select_both
from tests.symmetry.zoo import ZOO


def mover_of(net, X=None):
    symmetry = discover_symmetry(net, X, verify=False)
    return symmetry, Mover(symmetry.blocks, symmetry.groups)


def test_a_large_matrix_is_moved_part_by_part_to_the_same_places():
    net = nn.Sequential(
        nn.Linear(2, 1100), nn.ReLU(), nn.Linear(1100, 1200), nn.ReLU(), nn.Linear(1200, 2)
    )
    symmetry, mover = mover_of(net)
    arrays = {name: array.copy() for name, array in symmetry.random_permutation(0).items()}
    large = net[2].weight.detach()
    assert large.numel() > LARGE
    assert len(large) % (CACHED * len(large) // large.numel())  # the last part is smaller
    expected = large[arrays["2"]][:, arrays["0"]]
    assert torch.equal(mover.tensor("2.weight", large, arrays), expected)
    rows_only = mover.tensor("2.weight", large, {"2": arrays["2"]})
    assert torch.equal(rows_only, large[arrays["2"]])
    columns_only = mover.tensor("2.weight", large, {"0": arrays["0"]})
    assert torch.equal(columns_only, large[:, arrays["0"]])
    assert mover.tensor("2.weight", large, {}) is large


def test_a_large_matrix_keeps_its_gradient():
    matrix = torch.arange(6.0).view(2, 3).requires_grad_()
    rows, columns = torch.tensor([1, 0]), torch.tensor([2, 0, 1])
    found = _select_both(matrix, rows, columns)
    assert torch.equal(found, matrix.detach()[rows][:, columns])
    assert torch.equal(_select_both(matrix.detach(), rows, columns), found)
    (gradient,) = torch.autograd.grad(found[0, 0], matrix)
    assert gradient.nonzero().tolist() == [[1, 2]]


def test_groups_that_are_left_out_do_not_move():
    net, (X,) = ZOO["conv_flatten"].make()
    symmetry, mover = mover_of(net, X)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    *_, last = symmetry.groups
    arrays = {last.name: np.roll(np.arange(last.size), 1)}
    moved = mover.state(state, arrays)
    places = {tensor for tensor, _ in last.places}
    assert places < state.keys()
    for name, tensor in state.items():
        assert (moved[name] is tensor) == (name not in places)


def test_tied_tensors_stay_one():
    symmetry, mover = mover_of(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    weight = torch.randn(4, 3)
    state = {"0.weight": weight, "2.weight": weight}
    moved = mover.state(state, symmetry.random_permutation(1), {"2.weight": "0.weight"})
    assert moved["2.weight"] is moved["0.weight"]
    assert moved["0.weight"] is not weight


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_may_lie_on_several_devices():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    symmetry, mover = mover_of(net)
    arrays = symmetry.random_permutation(1)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    expected = mover.state(state, arrays)
    moved = mover.state({**state, "2.weight": state["2.weight"].cuda()}, arrays)
    assert moved["2.weight"].is_cuda
    for name, tensor in moved.items():
        assert torch.equal(tensor.cpu(), expected[name])
