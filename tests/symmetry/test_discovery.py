"""discover_symmetry: what it is asked, and what is remembered of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklmc.models import view
from sklmc.symmetry import _discovery, discover_symmetry
from sklmc.symmetry._discovery import cached_symmetry
from tests.symmetry.zoo import Net


def net_of(width):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))


def test_verify_is_yes_or_no():
    with pytest.raises(TypeError, match="'verify'"):
        discover_symmetry(net_of(4), verify="later")
    assert discover_symmetry(net_of(4), verify=False).evidence is None
    assert discover_symmetry(net_of(4)).evidence is not None


def test_without_a_proof_it_is_eval_mode_that_counts():
    def forward(net, x):
        h = net.a(x).tanh()
        return net.b(h.cumsum(1) if net.training else h)

    net = Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    found = [discover_symmetry(net, torch.randn(8, 3), verify=verify) for verify in (False, True)]
    assert [[group.size for group in symmetry.groups] for symmetry in found] == [[5], []]


def test_the_oldest_architecture_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(_discovery, "_LARGEST", 2)
    monkeypatch.setattr(_discovery, "_found", {})
    looks = {width: view(net_of(width), caller="test") for width in (4, 5, 6)}
    found = {width: cached_symmetry(look) for width, look in looks.items()}
    assert len(_discovery._found) == 2
    assert cached_symmetry(looks[5]) is found[5]
    assert cached_symmetry(looks[6]) is found[6]
    assert cached_symmetry(looks[4]) is not found[4]
    other = view(net_of(6), caller="test")
    assert cached_symmetry(other) is found[6]
    assert cached_symmetry(other, torch.randn(8, 3)).groups == found[6].groups
