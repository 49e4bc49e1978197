"""What is claimed, without the proof, of an operation between two linear layers."""

from __future__ import annotations

import torch

from sklmc.symmetry import discover_symmetry
from tests.symmetry.claims import EXACT, changes_of_outputs
from tests.symmetry.rules.test_freedom import Between


def true_groups(net, X) -> list[tuple[int, int]]:
    """Return size and copies of every group; all that is claimed keeps the function."""
    symmetry = discover_symmetry(net, X, verify=False)
    assert max(changes_of_outputs(net, X, symmetry)) < EXACT
    return sorted((group.size, group.copies) for group in symmetry.groups)


def groups_around(op, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the groups of an operation on hidden units of this shape."""
    torch.manual_seed(0)
    X = torch.randn(8, 3)
    return true_groups(Between(op, shape, X), X)
