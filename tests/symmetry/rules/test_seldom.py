"""Seldom forms of operations: with a number, without a dimension, on what is fixed.

Every operation stands between two linear layers; what is claimed without the proof is true, and the
groups are those that the formula leaves free.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.rules.test_freedom import TABLE, Between


def masked(x):
    y = x.clone()
    y[y > 0] = 0.5
    return y + x


def images(x):
    """Units as channels of two by two places, all of the same value."""
    return x[:, :, None, None].expand(-1, -1, 2, 2)


FREE = {  # operation on (n, 6 units) -> every unit moves
    "grid_sample": lambda x: F.grid_sample(
        images(x), torch.zeros(x.shape[0], 2, 2, 2).to(x), align_corners=False
    ),
    "einsum_without_arrow": lambda x: x @ torch.einsum("ab,ac", x, x.sin()),
    "repeated_once": lambda x: x.repeat_interleave(1, 1),
    "prelu_with_a_number": lambda x: F.prelu(x, torch.tensor(0.2).to(x)),
    "prelu_with_one_slope": lambda x: F.prelu(x, torch.tensor([0.2]).to(x)),
    "patches": lambda x: F.unfold(images(x), (2, 2)),
    "patches_and_back": lambda x: F.fold(F.unfold(images(x), (1, 2)), (2, 2), (1, 2)),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(images(x), 2),
    "times_a_number": lambda x: x * torch.dot(x[0], x[0].sin()),
    "place_of_a_number": lambda x: x + torch.searchsorted(TABLE.to(x), 0.3),
}

FIXED = {  # operation on (n, 6 units) -> no unit moves
    "take": lambda x: x + torch.take(x, torch.tensor([0])),
    "take_along_dim": lambda x: x + torch.take_along_dim(x, torch.tensor([0])),
    "masked": masked,
    "repeated_unevenly": lambda x: x.repeat_interleave(
        torch.tensor([1, 2, 1, 1, 1, 1]), 1, output_size=7
    ),
    "sorter": lambda x: x + torch.searchsorted(TABLE.to(x), x, sorter=torch.arange(5)),
    "glu_of_fixed": lambda x: F.glu(x.cumsum(1), 1),
    "pixel_shuffle_of_fixed": lambda x: F.pixel_shuffle(x.cumsum(1)[:, :4, None, None], 2),
    "channel_shuffle_of_fixed": lambda x: F.channel_shuffle(x.cumsum(1)[..., None, None], 2),
    "fold_of_fixed": lambda x: F.fold(x.cumsum(1)[:, :4, None], (2, 2), (2, 2)),
    "group_norm_of_fixed": lambda x: F.group_norm(x.cumsum(1), 2),
}

BLOCKS = {  # operation on (n, 2, 3) -> groups
    "larger_of_two": (lambda x: torch.max(x, x.sin()), [(2, 1), (3, 2)]),
    "larger_of_two_shapes": (lambda x: torch.max(x, x.sin()[:, :1]), [(3, 1)]),
    "smaller_of_fewer_axes": (lambda x: torch.min(x, x[0, 0]), [(3, 1)]),
    "largest_of_all": (lambda x: x * x.max(), [(2, 1), (3, 2)]),
    "median_of_all": (lambda x: x - x.median(), [(2, 1), (3, 2)]),
    "addbmm": (
        lambda x: torch.addbmm(torch.zeros(2, 3).to(x), x @ x.mT, x) + x,
        [(2, 1), (3, 1)],
    ),
    "baddbmm": (lambda x: torch.baddbmm(x, x @ x.mT, x), [(2, 1), (3, 1)]),
    "gathered_in_part": (lambda x: x.gather(2, x[:, :1].argsort(2)), []),
    "gathered_from_two_of_three": (
        lambda x: (
            x[:, :, :1].expand(-1, -1, 3).gather(1, torch.tensor([[[0, 1]]]).expand(len(x), 2, 2))
        ),
        [(2, 2), (2, 2)],  # the two copies that come out, and the two places that are not used
    ),
    "scattered_in_part": (lambda x: x.scatter(2, x[:, :1].argsort(2), x), []),
}


def misfit(x):
    """Sums parts of 6 in 4 groups and parts of 4 in 6 groups."""
    return x.view(-1, 4, 6).softmax(2).flatten(1) + x.view(-1, 6, 4).softmax(2).flatten(1)


def grouped_heads(x):
    """Four heads of queries on two heads of keys, as many as there are numbers in a head."""
    query = x[:, :24].view(-1, 3, 4, 2).transpose(1, 2)
    key = x[:, 24:].view(-1, 3, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, key.sin(), enable_gqa=True)


CASES = {
    "parts_that_do_not_fit": (misfit, (24,), []),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x[:, :, None, None], 2), (8,), [(2, 1)]),
    "fold": (lambda x: F.fold(x[:, :, None], (2, 2), (2, 2)), (8,), [(2, 1)]),
    "stack_behind": (lambda x: torch.stack([x, x.sin()], -1), (2, 3), [(2, 1), (3, 2)]),
    "stack_before_the_last": (lambda x: torch.stack([x, x.sin()], -2), (6,), [(6, 1)]),
    "pixel_unshuffle_of_five_axes": (lambda x: F.pixel_unshuffle(x[:, None, None], 2), (2, 4), []),
    **{name: (op, (6,), [(6, 1)]) for name, op in FREE.items()},
    **{name: (op, (6,), []) for name, op in FIXED.items()},
    **{name: (op, (2, 3), groups) for name, (op, groups) in BLOCKS.items()},
}


@pytest.mark.parametrize("name", list(CASES))
def test_seldom_forms_claim_what_is_true_and_no_less(name):
    op, shape, groups = CASES[name]
    torch.manual_seed(0)
    X = torch.randn(8, 3)
    net = Between(op, shape, X)
    symmetry = discover_symmetry(net, X, verify=False)
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
    assert sorted((group.size, group.copies) for group in symmetry.groups) == groups


def test_queries_that_share_keys_claim_what_is_true():
    torch.manual_seed(0)
    X = torch.randn(8, 3)
    net = Between(grouped_heads, (36,), X)
    symmetry = discover_symmetry(net, X, verify=False)
    assert symmetry.groups
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
