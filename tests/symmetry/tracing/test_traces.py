"""Traces of what is awkward to trace: averages of all calls, rows, random slopes, torch.vmap."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from tests.symmetry.zoo import Net

EXACT = 1e-12  # rounding in float64


def sample(rows):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rows", [3, 8, 12])
def test_batch_norm_without_momentum_is_proved_in_both_modes(rows):
    def forward(net, x):
        return net.b(net.norm(net.a(x)).relu().view(x.shape[0], -1))

    norm = nn.BatchNorm1d(5, momentum=None)
    net = Net(forward, a=nn.Linear(3, 5), norm=norm, b=nn.Linear(5, 2))
    symmetry = discover_symmetry(net, sample(rows))
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert norm.momentum is None


def test_eval_mode_is_proved_where_train_mode_cannot_be_traced_with_any_number_of_rows():
    def forward(net, x):
        h = net.a(x)
        if net.training and h.sum() > 0:
            h = h + 1
        return net.b(h.relu().view(x.shape[0], 5))

    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    with pytest.warns(UserWarning, match="could not be traced in train mode"):
        symmetry = discover_symmetry(net, sample(12))
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval"]


def test_both_modes_have_the_rows_that_train_mode_wants():
    def forward(net, x):
        h = net.a(x).relu()
        if net.training:
            h = h + net.offsets
        return net.b(h.view(x.shape[0], 5))

    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    net.register_buffer("offsets", torch.randn(12, 1), persistent=False)
    symmetry = discover_symmetry(net, sample(12))
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval", "train"]


def test_random_slopes_are_fixed_in_eval_mode():
    net = nn.Sequential(nn.Linear(3, 5), nn.RReLU(), nn.Linear(5, 2))
    symmetry = discover_symmetry(net, sample(8))
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval"]
    assert symmetry.verify(net, sample(8)) < EXACT


def test_functions_mapped_over_samples_are_seen_through():
    def forward(net, x):
        h = torch.vmap(lambda row: net.a(row).relu())(x)
        return torch.vmap(net.b)(h) * torch.vmap(torch.dot)(h, h).unsqueeze(-1)

    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    symmetry = discover_symmetry(net, sample(8))
    assert [group.size for group in symmetry.groups] == [5]
    assert symmetry.evidence["modes"] == ["eval", "train"]
    assert symmetry.verify(net, sample(8)) < EXACT


def test_statistics_that_a_mapped_net_updates_are_no_outputs():
    def forward(net, x):
        return torch.vmap(net.b)(net.norm(net.a(x)).relu())

    net = Net(forward, a=nn.Linear(3, 5), norm=nn.BatchNorm1d(5), b=nn.Linear(5, 2))
    symmetry = discover_symmetry(net, sample(8))
    assert symmetry.evidence["failed"] == {}
    assert symmetry.verify(net, sample(8)) < EXACT


@pytest.mark.slow  # torch.cond loads the compiler
def test_what_a_condition_on_values_touches_is_frozen():
    def forward(net, x):
        h = net.b(net.a(x).relu())
        return net.c(torch.cond(h.sum() > 0, torch.sin, torch.cos, (h,)))

    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 4), c=nn.Linear(4, 2))
    symmetry = discover_symmetry(net, sample(8))
    assert [group.size for group in symmetry.groups] == [5]
    assert any("higher_order::cond" in entry.reason for entry in symmetry.frozen)


def test_a_scalar_is_sorted_and_accumulated():
    def forward(net, x):
        h = net.a(x).relu()
        mean = h.mean()
        places = mean.sort(0).indices + mean.max(0).indices
        return net.b(h) + mean.sort(0).values + mean.cumsum(0) + places

    symmetry = discover_symmetry(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), sample(8))
    assert [group.size for group in symmetry.groups] == [5]


@pytest.mark.parametrize("start, stop", [(0, 0), (2, 2), (5, 5)])
def test_a_stretch_of_no_length_is_cut_nowhere(start, stop):
    def forward(net, x):
        h = net.a(x).relu()
        return net.b(torch.cat([h[:, start:stop], h], 1)) + h[:, start:stop].sum()

    symmetry = discover_symmetry(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), sample(8))
    frozen = {entry.tensor: entry for entry in symmetry.frozen if entry.axis == 0}
    assert not symmetry.groups  # what is joined with nothing is frozen, for a reason
    assert frozen["a.weight"].size == 5
    assert "aten::cat" in frozen["a.weight"].reason
