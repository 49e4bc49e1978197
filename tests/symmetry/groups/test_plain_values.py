"""Groups written as plain values: what is no group is refused when it is read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.symmetry import discover_symmetry
from sklmc.symmetry._groups._group import group_from_dict, group_to_dict


@pytest.fixture(scope="module")
def entry():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    (group,) = discover_symmetry(net, torch.randn(5, 3), verify=False).groups
    assert group_from_dict(group_to_dict(group)) == group
    return group_to_dict(group)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"within": [None], "outer_sizes": [2]},
        {"unobservable": ["0.weight", 1]},
        {"places": [["0.weight", 0], [0, 0]]},
        {"within": ["other"]},  # lacks the other's size
    ],
)
def test_names_are_text_and_outer_sizes_are_known(entry, change):
    with pytest.raises((TypeError, ValueError)):
        group_from_dict({**entry, **change})
