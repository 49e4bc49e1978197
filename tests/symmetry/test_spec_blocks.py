"""Blocks read from a file: disjoint, and together all of their tensor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._blocks import BlockAxis
from sklmc.symmetry._groups._group import checksum
from sklmc.symmetry._spec import _axis_from_dict, _axis_to_dict, _is_covered


def block(*axes):
    return SimpleNamespace(axes=[SimpleNamespace(positions=np.array(axis)) for axis in axes])


@pytest.mark.parametrize(
    "blocks, covered",
    [
        ([block([0, 1, 2, 3], [0, 1])], True),
        ([block([0, 1], [0, 1]), block([[2], [3]], [0, 1])], True),
        ([block([0, 1], [0, 1]), block([1, 2], [0, 1])], False),  # as many, but one twice
        ([block([0, 1], [0, 1]), block([2], [0, 1])], False),
        ([block([0, 1], [0, 1]), block([2, 3], [0, 1]), block([3], [1])], False),
    ],
)
def test_blocks_cover_a_tensor_once(blocks, covered):
    assert _is_covered(tuple(blocks), (4, 2)) is covered


@pytest.mark.parametrize("graph_hash, taken", [(None, True), ("ab", True), (3, False)])
def test_digest_of_the_forward_pass_is_text_or_not_known(graph_hash, taken):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    spec = discover_symmetry(net, torch.randn(8, 3), verify=False).to_dict()
    spec["graph_hash"] = graph_hash
    spec["checksum"] = checksum({k: v for k, v in spec.items() if k != "checksum"})
    if taken:
        assert PermutationSymmetry.from_dict(spec).graph_hash == graph_hash
    else:
        with pytest.raises(SymmetryError, match="graph_hash"):
            PermutationSymmetry.from_dict(spec)


@pytest.mark.parametrize(
    "positions, entry",
    [
        ([[4, 5, 6], [7, 8, 9]], {"start": 4, "steps": [3, 1]}),
        ([[9, 8]], {"start": 9, "steps": [0, -1]}),
        ([0, 1, 3], {"positions": [0, 1, 3]}),
    ],
)
def test_evenly_spaced_positions_are_told_by_start_and_steps(positions, entry):
    positions = np.array(positions)
    axis = BlockAxis(positions, ("h", None)[-positions.ndim :])
    written = _axis_to_dict(axis)
    assert written == {"factors": list(axis.factors), "shape": list(positions.shape), **entry}
    read = _axis_from_dict(written, 10)
    np.testing.assert_array_equal(read.positions, positions)
    assert read.factors == axis.factors


@pytest.mark.parametrize(
    "entry, what",
    [
        ({"shape": [4], "start": 0, "steps": [1]}, "larger than its tensor"),
        ({"shape": [2, 1], "start": 0, "steps": [1, 0]}, "a factor without a size"),
        ({"shape": [2], "start": 0, "steps": [0]}, "holds a position twice"),
        ({"shape": [1], "start": 3, "steps": [0]}, "reaches beyond"),
        ({"shape": [1], "start": -1, "steps": [0]}, "reaches beyond"),
        ({"shape": [2], "start": 2, "steps": [1]}, "reaches beyond"),
        ({"shape": [2], "start": 0, "steps": [1], "factors": [3]}, "a factor is no name"),
        ({"shape": [2, 1], "start": 0, "steps": [1, 0], "factors": ["h", 3]}, "is no name"),
    ],
)
def test_positions_that_no_tensor_of_three_has_are_refused(entry, what):
    with pytest.raises(ValueError, match=what):
        _axis_from_dict({"factors": ["h"], **entry}, 3)


def test_positions_up_to_both_ends_are_taken():
    read = _axis_from_dict({"factors": ["h"], "shape": [3], "start": 2, "steps": [-1]}, 3)
    assert read.positions.tolist() == [2, 1, 0]
