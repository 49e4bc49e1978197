"""Operations whose result holds places or bits, not values: what they work along stays put."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.rules.test_freedom import Between

PLACES = {  # operation on (n, 2, 3) -> groups
    "max along the first": (lambda x: x * x.max(1, keepdim=True).indices, [(3, 1)]),
    "min along the last": (lambda x: x + x.min(2, keepdim=True).indices, [(2, 1)]),
    "only the values of max": (lambda x: x - x.max(2, keepdim=True).values, [(2, 1), (3, 2)]),
    "both results of max": (lambda x: x.max(1).values * x.max(1).indices, [(3, 1)]),
}


@pytest.mark.parametrize("name", list(PLACES))
def test_axis_along_which_a_place_is_used_is_fixed_and_no_other(name):
    op, groups = PLACES[name]
    torch.manual_seed(0)
    X = torch.randn(8, 3)
    net = Between(op, (2, 3), X)
    symmetry = discover_symmetry(net, X, verify=False)
    assert sorted((group.size, group.copies) for group in symmetry.groups) == groups
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT


class Bits(nn.Module):
    """Reads the hidden units as numbers of another type."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden + hidden.view(torch.int32).remainder(2))


def test_numbers_read_as_another_type_free_nothing():
    symmetry = discover_symmetry(Bits(), torch.randn(8, 3), verify=False)
    assert symmetry.groups == ()
    assert any("read as another type" in frozen.reason for frozen in symmetry.frozen)
