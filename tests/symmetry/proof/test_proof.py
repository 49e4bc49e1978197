"""Tensors whose move no output sees are told from those that only have no derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._proof._draws import N_DRAWS
from tests.symmetry.zoo import Net


def unseen(forward, **parts):
    (group,) = discover_symmetry(Net(forward, **parts), torch.randn(8, 3)).groups
    return group.unobservable


def test_steps_have_no_derivative_and_are_seen():
    def forward(net, x):
        return net.b((3 * net.a(x)).round())

    assert unseen(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)) == ()


def test_a_bias_that_is_multiplied_by_nothing_is_not_seen():
    def forward(net, x):
        return net.b(net.a(x).tanh() + 0.0 * net.c)

    c = nn.Parameter(torch.randn(5))
    assert unseen(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2), c=c) == ("c",)


def test_what_has_no_derivative_is_tried():
    def forward(net, x):
        return net.b(net.a(x).tanh()) > 0  # 64 answers for each sample

    torch.manual_seed(0)
    assert unseen(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 64)) == ()


def test_random_numbers_are_refused_even_where_they_count_for_nothing():
    def forward(net, x):
        h = net.a(x)
        return net.b(h + 0.0 * torch.rand_like(h))

    with pytest.raises(SymmetryError, match="random in eval mode"):
        discover_symmetry(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), torch.randn(8, 3))


def test_every_draw_of_a_proof_is_counted_by_its_kind():
    net = Net(lambda net, x: net.b(net.a(x).tanh()), a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    evidence = discover_symmetry(net, torch.randn(8, 3)).evidence
    assert evidence["draws"] == {"transposition": 1, "uniform": N_DRAWS}
    assert evidence["n_draws"] == N_DRAWS + 1
