"""States that a permutation moves: all of it where no unit stays, the same tensors where all do."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry


def test_units_that_all_move_are_moved_and_units_that_stay_keep_their_tensors():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    state = net.state_dict()
    symmetry = discover_symmetry(net, torch.randn(5, 3))
    first, second = (group.name for group in symmetry.groups)
    around = np.roll(np.arange(4), 1)
    moved = symmetry.apply_state(state, symmetry.permutation({first: around, second: np.arange(5)}))
    assert torch.equal(moved["0.weight"], state["0.weight"][around])
    assert torch.equal(moved["0.bias"], state["0.bias"][around])
    assert torch.equal(moved["2.weight"], state["2.weight"][:, around])
    for name in ("2.bias", "4.weight", "4.bias"):
        assert moved[name] is state[name]
