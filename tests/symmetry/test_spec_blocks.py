"""Blocks read from a file: disjoint, and together all of their tensor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

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
