"""Axes that are read whole in one place and in parts in another: parts become things of their own.

What lies at one index of a fixed factor may depend only on what its tensors hold.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._labelling._extraction import _in_data_flow, extract
from sklmc.symmetry._labelling._walk import label_graphs
from sklmc.symmetry._tracing._subject import Subject
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.zoo import ZOO, Net


def repeated_and_read_in_part():
    def forward(self, x):
        hidden = self.a(x).relu().repeat_interleave(2, 1)
        return self.b(hidden) + self.c(hidden[:, 4:])

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(8, 2), c=nn.Linear(4, 2))


def repeated_and_read_across():
    def forward(self, x):
        hidden = self.a(x).relu().repeat_interleave(2, 1)
        return self.b(hidden) + self.c(hidden[:, 3:])

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(8, 2), c=nn.Linear(5, 2))


def grouped_and_cut_across_the_groups():
    def forward(self, x):
        hidden = self.b(self.a(x.unsqueeze(-1)))  # channels (2 groups, 3)
        return self.c(torch.cat([hidden[:, :2].sin(), hidden[:, 2:]], 1).flatten(1))

    conv = nn.Conv1d(4, 6, 1, groups=2)
    return Net(forward, a=nn.Conv1d(3, 4, 1), b=conv, c=nn.Linear(6, 2))


def grouped_read_whole_and_across():
    def forward(self, x):
        hidden = self.b(self.a(x.unsqueeze(-1))).flatten(1)
        return self.c(hidden) + self.d(hidden[:, 1:5])

    conv = nn.Conv1d(4, 6, 1, groups=2)
    return Net(forward, a=nn.Conv1d(3, 4, 1), b=conv, c=nn.Linear(6, 2), d=nn.Linear(4, 2))


def padded_and_regrouped():
    def forward(self, x):
        hidden = F.pad(self.a(x).relu(), (2, 0)).view(-1, 2, 3)
        return self.b(torch.stack([hidden, hidden.sin()], 1).flatten(1))

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(12, 2))


def padded_and_convolved_in_groups():
    def forward(self, x):
        hidden = F.pad(self.a(x).relu(), (1, 1)).unsqueeze(-1)
        return self.c(self.b(hidden).flatten(1))

    return Net(forward, a=nn.Linear(3, 4), b=nn.Conv1d(6, 4, 1, groups=2), c=nn.Linear(4, 2))


def padded_and_moved():
    def forward(self, x):
        hidden = F.pad(self.a(x).relu(), (0, 2)).roll(1, 1).flip(1).unfold(1, 2, 1)
        return self.b((hidden / (1 + hidden.std(2, keepdim=True))).flatten(1))

    return Net(forward, a=nn.Linear(3, 6), b=nn.Linear(14, 2))


def written_in_part():
    def forward(self, x):
        hidden = self.a(x).relu().repeat_interleave(2, 1)
        written = hidden.clone()
        written.narrow(1, 0, 4).copy_(hidden.narrow(1, 4, 4).sin())
        return self.b(written * written)

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(8, 2))


@pytest.mark.parametrize(
    "build, groups",
    [
        (repeated_and_read_in_part, [(2, 1)] * 4),
        (repeated_and_read_across, [(2, 1)] * 3),
        (grouped_and_cut_across_the_groups, [(2, 1), (2, 1), (2, 1), (3, 1)]),
        (grouped_read_whole_and_across, [(2, 1)] * 4),
        (padded_and_regrouped, [(2, 1), (3, 1)]),
        (padded_and_convolved_in_groups, [(2, 1)] * 4),
        (padded_and_moved, []),
        (written_in_part, [(2, 1)] * 2),
    ],
)
def test_parts_of_an_axis_are_found_and_true(build, groups):
    torch.manual_seed(0)
    net, X = build(), torch.randn(5, 3)
    symmetry = discover_symmetry(net, X, verify=False)
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
    assert sorted((group.size, group.copies) for group in symmetry.groups) == groups


def flattened_image():
    def forward(self, x):
        return self.b(self.a(x).flatten(1))

    net = Net(forward, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Linear(144, 2))
    return net, torch.randn(2, 3, 6, 6)


def recurrent():
    def forward(self, x):
        return self.b(self.a(x)[0])

    return Net(forward, a=nn.LSTM(3, 5), b=nn.Linear(5, 2)), torch.randn(4, 2, 3)


def test_size_of_a_frozen_axis_counts_its_indices():
    net, X = flattened_image()
    sizes = {(e.tensor, e.axis): e.size for e in discover_symmetry(net, X, verify=False).frozen}
    assert sizes == {
        ("a.weight", 1): 3,
        ("a.weight", 2): 3,
        ("a.weight", 3): 3,
        ("b.weight", 0): 2,
        ("b.weight", 1): 36,  # positions; the 4 channels move
        ("b.bias", 0): 2,
    }


def test_size_of_an_axis_frozen_by_the_proof_counts_its_indices():
    net, X = recurrent()
    structure = extract(labelled(net, X))
    (group,) = structure.groups
    found = structure.without({group.name: "why"}).frozen
    sizes = {(e.tensor, e.axis): e.size for e in found if e.reason == "why"}
    assert sizes == {
        ("a.weight_ih_l0", 0): 20,  # four gates of 5 units
        ("a.weight_hh_l0", 0): 20,
        ("a.weight_hh_l0", 1): 5,
        ("a.bias_ih_l0", 0): 20,
        ("a.bias_hh_l0", 0): 20,
        ("b.weight", 1): 5,
    }


def labelled(net, X):
    subject = Subject(net, X, "test")
    graphs = [subject.graph(False)]
    return label_graphs(graphs, subject.shapes, subject.aliases, subject.movable)


@pytest.mark.parametrize("name", ["gpt", "normed_queries_and_keys", "lstm_bidirectional"])
def test_groups_come_in_one_order_every_time(name):
    """Leaves lie at other addresses each time, which their order must not show."""
    net, inputs = ZOO[name].make()
    subject = Subject(net, inputs if len(inputs) > 1 else inputs[0], "test")
    graphs, orders, kept = [subject.graph(False)], set(), []
    for _ in range(8):
        kept.append(label_graphs(graphs, subject.shapes, subject.aliases, subject.movable))
        groups = extract(kept[-1]).groups
        orders.add(tuple((group.name, group.within) for group in groups))
    assert len(orders) == 1


def test_outer_leaves_come_before_what_they_hold():
    labels = Labels()
    outer = labels.leaf(2)
    inner = labels.leaf(3, {outer})
    assert _in_data_flow(labels, [outer, inner], {inner: 0, outer: 1}) == [outer, inner]
