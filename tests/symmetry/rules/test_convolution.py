"""Convolutions by channels and groups; images sampled at places that depend on the sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.symmetry.rules.claimed import groups_around, true_groups
from tests.symmetry.rules.test_seldom import images
from tests.symmetry.zoo import Net


def test_channels_move_where_every_sample_is_read_at_places_of_its_own():
    def sampled(x):
        places = x.mean(1).sigmoid()[:, None, None, None].expand(-1, 2, 2, 2)
        return F.grid_sample(images(x), places, align_corners=False)

    assert groups_around(sampled, (6,)) == [(6, 1)]


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize(
    "into, out, n_groups, expected",
    [
        (4, 2, 1, [(2, 1), (4, 1)]),
        (2, 6, 1, [(2, 1), (6, 1)]),
        (4, 4, 2, [(2, 1), (2, 2), (2, 2)]),  # groups, and channels within on both sides
        (3, 3, 3, [(3, 1)]),
        (1, 3, 1, [(3, 1)]),
    ],
)
def test_channels_move_and_within_groups_each_on_its_own(kind, into, out, n_groups, expected):
    def forward(net, x):
        return net.c(net.b(net.a(x).unsqueeze(-1)).flatten(1))

    torch.manual_seed(0)
    layer = kind(into, out, 1, groups=n_groups)
    net = Net(forward, a=nn.Linear(3, into), b=layer, c=nn.Linear(out, 2))
    assert true_groups(net, torch.randn(8, 3)) == expected
