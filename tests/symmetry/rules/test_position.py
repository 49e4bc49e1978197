"""Places: frequencies along as many of the last dimensions as are given sizes; stacks; borders."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.symmetry.rules.claimed import groups_around


@pytest.mark.parametrize(
    "op, groups",
    [
        (lambda x: torch.fft.fftn(x, s=(3,), dim=None).abs(), [(2, 1)]),
        (lambda x: torch.fft.fftn(x, s=(2, 3), dim=None).abs(), []),
        (lambda x: torch.fft.fftn(x, dim=(1,)).abs(), [(3, 1)]),
        (lambda x: torch.fft.fftn(x).abs(), []),
    ],
)
def test_dimensions_that_are_not_transformed_move(op, groups):
    assert groups_around(op, (2, 3)) == groups


def stacked(kind, axis):
    """Units of two samples beside each other, added to the units of all."""
    return lambda x: x + kind([x[0], x[1].sin()]).sum(axis).reshape(1, -1)


@pytest.mark.parametrize(
    "op, shape, groups",
    [
        (stacked(torch.vstack, 0), (6,), [(6, 1)]),
        (stacked(torch.dstack, 2), (6,), [(6, 1)]),
        (lambda x: torch.dstack([x, x.sin()]), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: torch.hstack([x, x.sin()]), (2, 3), [(2, 1), (3, 1)]),
        (lambda x: torch.cat([x, x.sin()], -1), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: F.pad(x, (0, 0, 1, 2)), (2, 3), [(2, 1), (2, 3), (3, 1)]),
        (lambda x: F.pad(x, (1, 0)), (2, 3), [(2, 1), (3, 2)]),
        (lambda x: F.pad(x, (-1, 1)), (2, 3), [(2, 1)]),
        (lambda x: F.pad(x, (1, 1), mode="circular"), (2, 3), [(2, 1)]),
        (lambda x: x.repeat(1, 2), (6,), [(2, 6), (6, 1)]),
        (lambda x: x.repeat(1, 2, 1), (2, 3), [(2, 1), (2, 6), (3, 2)]),
        (lambda x: x[:, 1:3], (6,), [(2, 1), (3, 1)]),
        (lambda x: x.mean(1, keepdim=True).expand(-1, 6)[:, 1:3], (6,), [(2, 2), (6, 1)]),
        (lambda x: x[:, -2:], (6,), [(2, 1), (4, 1)]),
        (lambda x: x[:, 2:3], (6,), [(2, 1), (3, 1)]),
        (lambda x: x[:, 3], (6,), [(2, 1), (3, 1)]),
        (lambda x: x.unfold(1, 2, 1), (6,), []),
        (lambda x: x.unfold(1, 2, 1), (2, 3), [(3, 1)]),
        (lambda x: x.tril(), (2, 3), []),
    ],
)
def test_places_that_are_joined_cut_or_copied(op, shape, groups):
    assert groups_around(op, shape) == groups
