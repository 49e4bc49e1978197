"""VGG11 and ResNet20 of this library: groups, function, time."""

from __future__ import annotations

import time

import pytest
import torch

from sklmc._torch import seeded
from sklmc.nets import VGG11, ResNet20
from sklmc.symmetry import discover_symmetry

VGG_GROUPS = [4, 8, 16, 16, 32, 32, 32, 32, 32]
RESNET_GROUPS = sorted([4, 8, 16, *3 * [4], *3 * [8], *3 * [16]])


def made(kind, norm, multiplier):
    with seeded(0):
        return kind(width_multiplier=multiplier, norm=norm).eval(), torch.randn(8, 3, 16, 16)


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize(
    "kind, multiplier, groups", [(VGG11, 1 / 16, VGG_GROUPS), (ResNet20, 1 / 4, RESNET_GROUPS)]
)
def test_groups_and_function_of_the_own_weights_in_float32(kind, multiplier, groups, norm):
    net, X = made(kind, norm, multiplier)
    symmetry = discover_symmetry(net, X)
    assert sorted(group.size for group in symmetry.groups) == groups
    assert symmetry.evidence["error"] < 1e-10
    moved = symmetry.apply(net, symmetry.random_permutation(0))
    with torch.no_grad():
        before, after = net(X), moved.eval()(X)
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


@pytest.mark.nightly
def test_discovery_is_fast():
    """Targets with slack for a busy machine: 3 s with proof, half a second without."""
    with seeded(0):
        net, X = ResNet20(), torch.randn(8, 3, 32, 32)
    discover_symmetry(net, X, verify=False)
    times = {}
    for verify in (False, True):
        start = time.perf_counter()
        discover_symmetry(net, X, verify=verify)
        times[verify] = time.perf_counter() - start
    assert times[True] < 6
    assert times[False] < 1
