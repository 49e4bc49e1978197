"""Blocks: fixed neighbours are one factor, blocks that differ in what is fixed are one block."""

from __future__ import annotations

import numpy as np
import pytest

from sklmc.symmetry import PermutationGroup
from sklmc.symmetry._groups._blocks import (
    Block,
    BlockAxis,
    FrozenAxis,
    Structure,
    differing_axis,
    join_factors,
    join_fixed,
    places_of,
)


def axis(positions, *factors):
    return BlockAxis(np.array(positions), factors)


def described(axis):
    return axis.factors, axis.positions.tolist()


@pytest.mark.parametrize(
    "shape, factors, expected",
    [
        ((6,), ("h",), (("h",), (6,))),
        ((2, 3), (None, None), ((None,), (6,))),
        ((2, 3, 4), (None, None, "h"), ((None, "h"), (6, 4))),
        ((2, 3, 4), ("h", None, None), (("h", None), (2, 12))),
        ((2, 3, 4), (None, "h", None), ((None, "h", None), (2, 3, 4))),
        ((2, 3), ("h", "k"), (("h", "k"), (2, 3))),
        ((), (), ((None,), (1,))),
    ],
)
def test_neighbours_that_do_not_move_are_one_factor(shape, factors, expected):
    positions = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    joined = join_factors(positions, factors)
    assert (joined.factors, joined.positions.shape) == expected
    assert joined.positions.ravel().tolist() == positions.ravel().tolist()


def test_axis_is_fixed_where_its_only_factor_has_no_name():
    assert axis([0, 1], None).is_fixed
    assert not axis([0, 1], "h").is_fixed
    assert not axis([[0, 1]], "h", None).is_fixed


def test_named_factors_are_told_once_in_order():
    block = Block("w", (axis([[0, 1]], "k", "h"), axis([0], None), axis([0, 1], "h")))
    assert block.groups == ("k", "h")


H, K = axis([0, 1], "h"), axis([0, 1], "k")
LEFT, RIGHT, FAR = axis([3, 0], None), axis([2], None), axis([5, 4], None)


def test_blocks_differ_on_one_axis_or_it_is_not_told():
    assert differing_axis(Block("w", (H, LEFT)), Block("w", (H, RIGHT))) == 1
    assert differing_axis(Block("w", (LEFT, H)), Block("w", (RIGHT, H))) == 0
    assert differing_axis(Block("w", (H, LEFT)), Block("w", (K, RIGHT))) is None
    assert differing_axis(Block("w", (H, LEFT)), Block("w", (H, LEFT))) is None
    assert differing_axis(Block("w", (H, LEFT)), Block("w", (K, LEFT))) == 0


def test_blocks_that_differ_in_what_is_fixed_are_joined_and_no_others():
    joined = join_fixed([Block("w", (H, part)) for part in (LEFT, RIGHT, FAR)])
    assert [[described(a) for a in block.axes] for block in joined] == [
        [(("h",), [0, 1]), ((None,), [0, 2, 3, 4, 5])]
    ]
    apart = [Block("w", (H, LEFT)), Block("w", (K, RIGHT))]
    assert join_fixed(apart) == apart
    moving = [Block("w", (H, LEFT)), Block("w", (axis([2, 3], "h"), LEFT))]
    assert join_fixed(moving) == moving
    half = [Block("w", (H, LEFT)), Block("w", (axis([2, 3], None), LEFT))]
    assert join_fixed(half) == half


def test_places_of_some_factors_are_those_where_the_others_are_at_their_first():
    positions = np.arange(12).reshape(3, 4)
    assert places_of(positions, [True, False]) == [0, 4, 8]
    assert places_of(positions, [False, True]) == [0, 1, 2, 3]
    assert places_of(positions, [True, True]) == list(range(12))


def structure():
    """Heads of two numbers each, read by a matrix whose other side is h."""
    heads = axis([[0, 1], [2, 3], [4, 5]], "head", "within")
    groups = (
        PermutationGroup("head", 3, places=(("w", 0),)),
        PermutationGroup("within", 2, ("head",), (3,), (("w", 0),)),
        PermutationGroup("h", 2, places=(("w", 1),)),
    )
    frozen = (FrozenAxis("v", 0, 3, "cut"),)
    return Structure(groups, {"w": (Block("w", (heads, H)),)}, frozen)


def test_a_group_that_failed_is_frozen_for_its_reason_and_nothing_else_is():
    left = structure().without({"h": "failed so"})
    assert [group.name for group in left.groups] == ["head", "within"]
    assert [described(a) for a in left.blocks["w"][0].axes] == [
        (("head", "within"), [[0, 1], [2, 3], [4, 5]]),
        ((None,), [0, 1]),
    ]
    assert left.frozen == (
        FrozenAxis("v", 0, 3, "cut"),
        FrozenAxis("w", 1, 2, "failed so", kind="failed verification"),
    )


def test_what_a_kept_group_lies_within_keeps_its_name():
    left = structure().without({"head": "failed"})
    assert [group.name for group in left.groups] == ["within", "h"]
    assert left.blocks["w"][0].groups == ("head", "within", "h")
    assert left.frozen[1] == FrozenAxis("w", 0, 3, "failed", kind="failed verification")
    both = structure().without({"head": "failed", "within": "failed"})
    assert both.blocks["w"][0].axes[0].factors == (None,)
    assert [entry.size for entry in both.frozen[1:]] == [3, 2]


def test_nothing_is_frozen_where_nothing_failed():
    left = structure().without({})
    assert left.groups == structure().groups
    assert left.frozen == structure().frozen
