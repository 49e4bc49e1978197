"""Attention with heads that share keys or without heads; products in which each expert has rows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.rules.claimed import groups_around
from tests.symmetry.rules.test_seldom import grouped_heads


def test_heads_of_queries_move_within_the_heads_of_keys_that_they_share():
    groups = [
        (2, 1),  # heads of keys and values
        (2, 2),  # numbers within such a head, of the queries as well
        (2, 6),  # heads of queries that share one of keys, at each of three places
        (3, 1),  # places of the queries
        (3, 1),  # places of the keys and values
    ]
    assert groups_around(grouped_heads, (36,)) == groups


def test_features_move_where_later_places_are_masked():
    def attended(x):
        return F.scaled_dot_product_attention(x, x.sin(), x.cos(), is_causal=True)

    assert groups_around(attended, (5, 4)) == [(4, 1)]


class Experts(nn.Module):
    """Three experts, each with a stretch of the rows, in one product or one after the other."""

    def __init__(self, in_one):
        super().__init__()
        self.in_one = in_one
        self.a, self.b = nn.Linear(4, 16), nn.Linear(8, 2)
        self.weight = nn.Parameter(torch.randn(3, 16, 8))
        self.register_buffer("ends", torch.tensor([2, 5, 8], dtype=torch.int32))

    def forward(self, x):
        hidden = self.a(x).relu()
        if self.in_one:
            return self.b(torch._grouped_mm(hidden, self.weight, self.ends))
        rows = zip(hidden.tensor_split([2, 5]), self.weight, strict=True)
        return self.b(torch.cat([row @ weight for row, weight in rows]))


def test_experts_stay_and_what_they_read_and_write_moves():
    X = torch.randn(8, 4)
    symmetry = discover_symmetry(Experts(True).bfloat16(), X.bfloat16(), verify=False)
    assert sorted((group.size, group.copies) for group in symmetry.groups) == [(8, 1), (16, 1)]
    assert max(changes_of_outputs(Experts(False), X, symmetry)) < EXACT


def test_products_over_stretches_of_what_is_summed_free_nothing():
    class Stretches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(8, 2)
            self.weight = nn.Parameter(torch.randn(16, 8))
            self.register_buffer("ends", torch.tensor([8, 16], dtype=torch.int32))

        def forward(self, x):
            return self.b(torch._grouped_mm(self.a(x).relu(), self.weight, self.ends).sum(0))

    net, X = Stretches().bfloat16(), torch.randn(8, 4).bfloat16()
    assert discover_symmetry(net, X, verify=False).groups == ()
