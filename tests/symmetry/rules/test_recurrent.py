"""Recurrent layers by their formula: gates share units, a projection has its own, so do states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.symmetry.rules.claimed import true_groups
from tests.symmetry.zoo import Net

LAYERS = {  # arguments -> width of the output, groups of the cells and of the projections
    "lstm": ({}, 5, [(5, 1)]),
    "lstm without biases": ({"bias": False}, 5, [(5, 1)]),
    "two layers": ({"num_layers": 2}, 5, [(5, 1)] * 2),
    "two directions": ({"bidirectional": True}, 10, [(5, 1)] * 2),
    "projected": ({"proj_size": 4}, 4, [(4, 1), (5, 1)]),
    "projected without biases": ({"proj_size": 4, "bias": False}, 4, [(4, 1), (5, 1)]),
    "projected twice": ({"proj_size": 4, "num_layers": 2}, 4, [(4, 1)] * 2 + [(5, 1)] * 2),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_units_of_every_cell_and_of_every_projection_move(name):
    options, width, groups = LAYERS[name]
    torch.manual_seed(0)
    net = Net(lambda net, x: net.b(net.a(x)[0]), a=nn.LSTM(3, 5, **options), b=nn.Linear(width, 2))
    assert true_groups(net, torch.randn(4, 2, 3)) == groups


@pytest.mark.parametrize(
    "kind, options, groups",
    [
        (nn.GRU, {}, [(5, 1)]),
        (nn.GRU, {"num_layers": 2, "bias": False}, [(5, 1)] * 2),
        (nn.RNN, {"bidirectional": True}, [(5, 1)] * 2),
    ],
)
def test_the_last_hidden_state_is_the_units_of_the_last_cell(kind, options, groups):
    torch.manual_seed(0)
    net = Net(lambda net, x: net.b(net.a(x)[1][-1]), a=kind(3, 5, **options), b=nn.Linear(5, 2))
    assert true_groups(net, torch.randn(4, 2, 3)) == groups


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_units_that_a_cell_reads_move_with_its_inputs(kind, width):
    def forward(net, x):
        hidden = net.a(net.c(x))
        return net.b(hidden[0] if isinstance(hidden, tuple) else hidden)

    torch.manual_seed(0)
    net = Net(forward, c=nn.Linear(3, width), a=kind(width, 5), b=nn.Linear(5, 2))
    read = [(width, 1)] if width > 1 else []
    assert true_groups(net, torch.randn(8, 3)) == [*read, (5, 1)]


def test_the_state_of_a_cell_is_not_projected():
    def forward(net, x):
        hidden, state = net.a(x)[1]
        return net.b(hidden[0]) + net.c(state[0])

    torch.manual_seed(0)
    parts = {"a": nn.LSTM(3, 5, proj_size=4), "b": nn.Linear(4, 2), "c": nn.Linear(5, 2)}
    assert true_groups(Net(forward, **parts), torch.randn(4, 2, 3)) == [(4, 1), (5, 1)]


def test_directions_that_are_normed_apart_stay_theirs_at_one_moment():
    """A pick in time and then the directions, or the directions and then a pick: the same units."""

    def forward(net, x):
        h = net.a(x)[0].unflatten(-1, (2, 4)).softmax(-1).flatten(-2)  # direction by direction
        return net.head(net.b(h[0]))

    torch.manual_seed(0)
    parts = {"a": nn.LSTM(3, 4, bidirectional=True), "b": nn.GRUCell(8, 5), "head": nn.Linear(5, 2)}
    assert true_groups(Net(forward, **parts), torch.randn(6, 2, 3)) == [(4, 1), (4, 1), (5, 1)]
