"""Blocks read from a file: disjoint, and together all of their tensor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._group import checksum
from sklmc.symmetry._spec import _is_covered


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
