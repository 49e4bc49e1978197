"""Looking up and writing: only what places are looked up along stays put."""

from __future__ import annotations

import pytest
import torch

from tests.symmetry.rules.claimed import groups_around

FIRST = torch.tensor([0, 1])
SECOND = torch.tensor([1, 0])
UNEVEN = torch.tensor([0, 2])
PLACES = torch.tensor([[1, 0, 5, 4, 2, 7]])


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
        # written along the units; from the units to places; from blocks to places
        (lambda x: x.t().index_put((UNEVEN,), torch.zeros(2, 1).to(x)).t(), (6,), []),
        (lambda x: x.new_zeros(len(x), 8).scatter(1, PLACES.expand(len(x), 6), x), (6,), []),
        (lambda x: x.scatter(1, PLACES[:, :2, None].expand(len(x), 2, 3) % 2, x), (2, 3), [(3, 1)]),
        # whole slices: the index is a vector
        (lambda x: x.index_add(1, SECOND, x.sin()), (2, 3), [(3, 1)]),
        (lambda x: x.index_add(1, UNEVEN, x[:, :2].sin()), (6,), []),
        (lambda x: x.index_copy(2, FIRST[:1], x[:, :, :1].sin()), (2, 3), [(2, 1)]),
    ],
)
def test_dimensions_that_are_not_looked_up_move(op, shape, groups):
    assert groups_around(op, shape) == groups
