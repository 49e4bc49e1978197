"""Frequencies along as many of the last dimensions as sizes are given."""

from __future__ import annotations

import pytest
import torch

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
