"""Axes too long to be followed index by index are fixed where a cut does not fit them."""

from __future__ import annotations

import pytest
import torch

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._algebra import _labels
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.rules.test_freedom import Between


@pytest.mark.parametrize("limit, groups", [(1, []), (10**6, 3 * [(2, 1)])])
def test_cut_through_a_unit_of_a_long_axis_claims_nothing_false(limit, groups, monkeypatch):
    monkeypatch.setattr(_labels, "EXPANSION_LIMIT", limit)

    def cut(x):
        x = x.softmax(2).flatten(1)
        return torch.cat([x[:, 3:], x[:, :3].sin()], dim=1)

    torch.manual_seed(0)
    X = torch.randn(8, 3)
    net = Between(cut, (4, 2), X)
    symmetry = discover_symmetry(net, X, verify=False)
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
    assert sorted((group.size, group.copies) for group in symmetry.groups) == groups
