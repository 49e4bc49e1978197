"""Looking up and writing: only what places are looked up along stays put."""

from __future__ import annotations

import pytest
import torch

from tests.symmetry.rules.claimed import groups_around

FIRST = torch.tensor([0, 1])
SECOND = torch.tensor([1, 0])


def written_by_fewer_axes(x):
    written = x.clone()
    written[torch.tensor([0, 2])] = x.mean((0, 1))
    return written


def written_by_as_many_axes(x):
    written = x.clone()
    written[torch.tensor([0, 2])] = x[:2].sin()
    return written


def ranked(x):
    """Every value among the sorted ones of its own block."""
    return x + torch.searchsorted(x.sort(2).values, x.sin().contiguous())


@pytest.mark.parametrize(
    "op, shape, groups",
    [
        # indices that stand apart: their dimension comes first in the result
        (lambda x: x[:, FIRST, :, SECOND].movedim(0, 1), (2, 3, 2), [(3, 1)]),
        # indices that stand together: their dimension comes where the first stood
        (lambda x: x[:, FIRST, SECOND], (2, 2, 3), [(3, 1)]),
        (written_by_fewer_axes, (2, 3, 2), [(2, 1), (2, 3), (3, 1)]),
        (written_by_as_many_axes, (2, 3), [(2, 1), (3, 2)]),
        (ranked, (2, 3), [(2, 1), (3, 2)]),
    ],
)
def test_dimensions_that_are_not_looked_up_move(op, shape, groups):
    assert groups_around(op, shape) == groups
