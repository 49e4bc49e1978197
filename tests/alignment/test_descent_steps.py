"""Single steps of the descent: known gains are those of today, one pass goes by data flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklmc.alignment._descent import CoordinateDescent
from sklmc.alignment._tensor_pairs import block_pairs
from tests.alignment.test_descent import axis, identity, random_state_of, symmetry

BESIDE = symmetry(  # two tensors that h moves alone, two that h and k move, two for k alone
    {
        "w1": (axis(9, "h"), axis(4, None)),
        "b1": (axis(9, "h"),),
        "w2": (axis(7, "k"), axis(9, "h")),
        "v2": (axis(7, "k"), axis(9, "h")),
        "w3": (axis(3, None), axis(7, "k")),
        "b2": (axis(7, "k"),),
    },
    [("h", 9, ()), ("k", 7, ())],
)
SHAPES = {"w1": (9, 4), "b1": (9,), "w2": (7, 9), "v2": (7, 9), "w3": (3, 7), "b2": (7,)}
DIMS = {"h": {"w1": 0, "b1": 0, "w2": 1, "v2": 1}, "k": {"w2": 0, "v2": 0, "w3": 1, "b2": 0}}


def gains(a, b, name):
    """Sum over the tensors of a group: what unit i of A and unit j of B have in common."""
    found = 0.0
    for tensor, dim in DIMS[name].items():
        rows = [s[tensor].movedim(dim, 0).reshape(s[tensor].shape[dim], -1) for s in (a, b)]
        found = found + rows[0] @ rows[1].T
    return found.numpy()


def test_gains_are_those_of_the_present_permutations_after_every_move():
    a, b = random_state_of(SHAPES, 0), random_state_of(SHAPES, 1)
    descent = CoordinateDescent(block_pairs(a, b, BESIDE), BESIDE.groups)
    descent.perms = identity(BESIDE)
    blocks = descent._blocks
    random = np.random.RandomState(0)
    for name in "hkhhkk":
        for group in "hk":
            found = descent._total_gram(group, blocks[group])
            np.testing.assert_allclose(found, gains(a, b, group), atol=1e-12)
        perm = random.permutation(len(descent.perms[name]))
        if random.rand() < 0.5:  # few move: what is known is corrected
            perm = np.arange(len(perm))
            perm[[0, 1]] = perm[[1, 0]]
        descent._apply(name, perm)
        for tensor, dim in DIMS[name].items():
            b = b | {tensor: b[tensor].index_select(dim, torch.from_numpy(perm))}


def test_one_pass_goes_by_what_is_matched_already():
    """Each layer beside the first meets only layers that are still out of order on one side."""
    sizes = {"h": 9, "k": 7, "l": 8}
    sym = symmetry(
        {
            "w1": (axis(9, "h"), axis(4, None)),
            "w2": (axis(7, "k"), axis(9, "h")),
            "w3": (axis(8, "l"), axis(7, "k")),
            "w4": (axis(8, "l"),),
        },
        [(name, size, ()) for name, size in sizes.items()],
    )
    for seed in range(5):
        a = random_state_of({"w1": (9, 4), "w2": (7, 9), "w3": (8, 7), "w4": (8,)}, seed)
        a["w4"] *= 0.0  # nothing to go by but what comes before
        shuffle = np.random.RandomState(seed).permutation
        h, k, l = (shuffle(size) for size in sizes.values())  # noqa: E741
        b = {"w1": a["w1"][h], "w2": a["w2"][k][:, h], "w3": a["w3"][l][:, k], "w4": a["w4"][l]}
        descent = CoordinateDescent(block_pairs(a, b, sym), sym.groups)
        descent.perms = identity(sym)
        descent._one_sided_pass()
        assert descent.objective() == pytest.approx(
            sum(float(t.square().sum()) for t in a.values())
        )
