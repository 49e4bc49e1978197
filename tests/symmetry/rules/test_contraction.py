"""Attention with heads that share keys or without heads; products in which each expert has rows."""

from __future__ import annotations

import pytest
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


def of_two_key_heads(x):
    """As `grouped_heads`, with three numbers in a head."""
    query = x[:, :36].view(-1, 3, 4, 3).transpose(1, 2)
    key = x[:, 36:].view(-1, 3, 2, 3).transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, key.sin(), enable_gqa=True)


def masked(mask):
    return lambda x: F.scaled_dot_product_attention(x, x.sin(), x.cos(), attn_mask=mask(x))


SQUARE, CUBE = torch.ones(5, 5), torch.ones(4, 6, 6)
PRODUCTS = {  # operation on hidden units of a shape -> groups
    "attention of grouped heads": (
        of_two_key_heads,
        (54,),  # numbers in a head; heads of queries by head of keys; places twice; heads of keys
        [(2, 1), (2, 6), (3, 1), (3, 1), (3, 2)],
    ),
    "mask of the keys": (masked(lambda x: torch.arange(5.0).to(x).expand(5, 5)), (5, 4), [(4, 1)]),
    "mask of ones": (masked(lambda x: SQUARE.to(x)), (5, 4), [(4, 1), (5, 1)]),
    "mask made of the units": (masked(lambda x: x @ x.mT), (5, 4), [(4, 1), (5, 1)]),
    "addr": (lambda x: torch.addr(x[0], x.mean(1), x.mean(0)), (6,), [(6, 1)]),
    "addmm": (lambda x: torch.addmm(x[0], x @ x.t(), x), (6,), [(6, 1)]),
    "mv": (lambda x: torch.mv(x, x[0])[:, None] + x, (6,), [(6, 1)]),
    "bilinear": (lambda x: F.bilinear(x, x.sin(), CUBE.to(x)), (6,), [(4, 2), (6, 1)]),
    "bilinear of blocks": (
        lambda x: F.bilinear(x, x.sin(), CUBE[:, :3, :3].to(x), torch.arange(4.0).to(x)),
        (2, 3),
        [(2, 1), (3, 2)],
    ),
    "cosine along the first": (lambda x: F.cosine_similarity(x, x.sin()), (2, 3), [(2, 1), (3, 1)]),
    "cosine with one block": (
        lambda x: F.cosine_similarity(x, x[0, 0], dim=-1)[..., None] * x,
        (2, 3),
        [(3, 1)],
    ),
    "distances": (lambda x: torch.cdist(x, x.sin()), (2, 3), [(2, 1), (3, 1)]),
    "distances to one": (lambda x: torch.cdist(x, x[0].sin()), (2, 3), [(2, 1), (3, 1)]),
    "inner": (lambda x: torch.inner(x, x[0].sin()), (2, 3), [(2, 1), (3, 1)]),
    "inner with a number": (lambda x: torch.inner(x, torch.tensor(2.0).to(x)), (6,), []),
    "kron": (lambda x: torch.kron(x, SQUARE[0, :2].to(x)), (2, 3), [(2, 1), (2, 6), (3, 2)]),
    "kron of fewer": (
        lambda x: torch.kron(SQUARE[0, :2].to(x), x),
        (2, 3),
        [(2, 1), (2, 6), (3, 2)],
    ),
    "tensordot over two": (
        lambda x: torch.tensordot(x, x[0].sin(), dims=([1, 2], [0, 1]))[:, None, None] * x,
        (2, 3),
        [(2, 1), (3, 2)],
    ),
    "einsum of what is left": (
        lambda x: torch.einsum("...i,...i->...", x, x.sin())[..., None] * x,
        (2, 3),
        [(2, 1), (3, 2)],
    ),
    "einsum without arrow": (
        lambda x: torch.einsum("...ab,...bc", x, x.mT),
        (2, 3),
        [(2, 1), (3, 1)],
    ),
    "einsum with the rest inside": (
        lambda x: torch.einsum("n...i,ij->n...j", x, x[0].mT @ x[0]),
        (2, 3),
        [(2, 1), (3, 1)],
    ),
}


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_what_is_summed_over_or_carried_moves_as_the_formula_says(name):
    op, shape, groups = PRODUCTS[name]
    assert groups_around(op, shape) == groups


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


def test_equal_rows_are_given_to_experts_as_rows_in_order():
    class Alike(Experts):
        def forward(self, x):
            hidden = self.a(x).relu().mean(0, keepdim=True).expand(8, -1).contiguous()
            return self.b(torch._grouped_mm(hidden, self.weight, self.ends))

    net, X = Alike(True).bfloat16(), torch.randn(8, 4).bfloat16()
    symmetry = discover_symmetry(net, X, verify=False)
    assert sorted((group.size, group.copies) for group in symmetry.groups) == [(8, 1), (16, 1)]


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
