"""Specs whose checksum is right and whose parts contradict each other are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sklmc.exceptions import SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._group import checksum
from tests.symmetry.zoo import Net


@pytest.fixture(scope="module")
def spec():
    """Blocks of units within units, and a buffer."""

    def forward(net, x):
        h = net.a(x).view(len(x), 3, 2).softmax(2).flatten(1)
        return net.b(h) * net.scale

    net = Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2))
    net.register_buffer("scale", torch.ones(2))
    net.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    return discover_symmetry(net, torch.randn(8, 3), verify=False).to_dict()


def read(spec):
    spec = {name: part for name, part in spec.items() if name != "checksum"}
    return PermutationSymmetry.from_dict({**spec, "checksum": checksum(spec)})


def one_name(spec):
    spec["groups"][1]["name"] = spec["groups"][0]["name"]


def unknown_tied(spec):
    spec["aliases"] = [["a.weight", "nowhere"]]


def unknown_buffer(spec):
    spec["buffers"].append("nowhere")


def no_blocks(spec):
    del spec["blocks"]["a.bias"]


def uncovered(spec):
    spec["blocks"]["a.bias"][0][0]["shape"] = [3, 1]


def other_size(spec):
    spec["groups"][0]["size"] = 4


def other_outer_size(spec):
    spec["groups"][1]["outer_sizes"] = [4]


def outer_elsewhere(spec):
    factors = spec["blocks"]["a.bias"][0][0]["factors"]
    factors[0] = None


def one_place_less(spec):
    spec["groups"][0]["places"].pop()


def no_places(spec):
    spec["groups"].append({**copy.deepcopy(spec["groups"][0]), "name": "more", "places": []})


def two_sizes(spec):
    name = spec["groups"][0]["name"]
    spec["blocks"]["b.weight"][0][0]["factors"] = [name]


def odd_frozen(spec):
    spec["frozen"][0]["size"] = "3"


def odd_constant(spec):
    spec["constants"]["steps"] = 3


def odd_hash(spec):
    spec["graph_hash"] = 3


def odd_evidence(spec):
    spec["evidence"] = [1]


@pytest.mark.parametrize(
    "change, what",
    [
        (one_name, "two groups have one name"),
        (unknown_tied, "a tied tensor or a buffer is unknown"),
        (unknown_buffer, "a tied tensor or a buffer is unknown"),
        (no_blocks, "blocks and shapes are of different tensors"),
        (uncovered, "the blocks of 'a.bias' do not cover it"),
        (other_size, r"group '\S+' has two sizes"),
        (other_outer_size, "lies within differs"),
        (outer_elsewhere, "lies within differs"),
        (one_place_less, "are not where the blocks have it"),
        (no_places, "are not where the blocks have it"),
        (two_sizes, "has two sizes"),
        (odd_frozen, "a frozen axis is not told by name, axis, size and reason"),
        (odd_constant, "a constant has no digest"),
        (odd_hash, "'graph_hash' is no text"),
        (odd_evidence, "'evidence' is no mapping"),
    ],
)
def test_a_contradiction_is_named(spec, change, what):
    changed = copy.deepcopy(spec)
    change(changed)
    with pytest.raises(SymmetryError, match=what):
        read(changed)


def test_what_contradicts_nothing_is_read(spec):
    changed = copy.deepcopy(spec)
    assert read(changed).to_dict() == spec
    changed["buffers"] = sorted(changed["shapes"])  # every tensor may be a buffer
    assert read(changed).buffers == spec["shapes"].keys()
    changed["graph_hash"] = None
    assert read(changed).graph_hash is None
    changed["constants"] = {}
    changed["frozen"] = []
    assert read(changed).frozen == ()
