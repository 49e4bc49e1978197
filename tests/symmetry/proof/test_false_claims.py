"""Claims that hold for some elements only: what is false is found, and nothing else is frozen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import PermutationAligner
from sklmc.exceptions import ArchitectureMismatchError, SymmetryError
from sklmc.symmetry import PermutationSymmetry, discover_symmetry
from sklmc.symmetry._groups._blocks import Block, BlockAxis
from sklmc.symmetry._proof._draws import N_DRAWS
from sklmc.symmetry._proof._proof import prove
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._proof._runners import TOLERANCE, output_change
from sklmc.symmetry._rules import RULES, Labelled
from sklmc.symmetry._tracing._subject import Subject
from tests.symmetry.zoo import Net

EXACT = 1e-12  # rounding in float64, over nets two layers deep


def blocks_of(net, x):
    """Softmax over three blocks of two: the two must be in one order in all blocks."""
    return net.b(net.a(x).view(-1, 3, 2).softmax(1).flatten(1))


def rolled(net, x):
    """Three units of which any two are neighbours: only rotations leave the function."""
    h = net.a(x).tanh()
    return net.b(h * h.roll(1, -1))


def crossed(net, x):
    return net.b(torch.linalg.cross(net.a(x), net.a(x.roll(1, -1))))


def plain(net, x):
    return net.b(net.a(x).tanh())


def two_layers(forward, width=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(forward, a=nn.Linear(4, width), b=nn.Linear(width, 2))


def sample():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


SPEC = {"a.weight": ("h", None), "a.bias": ("h",), "b.weight": (None, "h")}


def prover_of(net):
    subject = Subject(net, sample(), "test")
    return Prover(subject, subject.graphs())


def function_change(symmetry, net, seed):
    """How much the net itself changes under one permutation of all that is claimed."""
    net, X = net.double().eval(), sample().double()
    moved = symmetry.apply(net, symmetry.random_permutation(seed))
    with torch.no_grad():
        return float((net(X) - moved.eval()(X)).abs().max())


def test_copies_of_two_units_do_not_pass_because_they_are_exchanged_alike():
    net = two_layers(blocks_of, 6)
    symmetry = discover_symmetry(net, sample())
    assert symmetry.verify(net, sample()) < EXACT
    assert max(function_change(symmetry, net, seed) for seed in range(20)) < EXACT


def softmax_as_pointwise(op):
    return Labelled(op.tensors[0].axes, op.shape())


@pytest.fixture
def claims_too_much(monkeypatch):
    """Claim an order of its own for the two units of every block."""
    monkeypatch.setitem(RULES, "aten::softmax", softmax_as_pointwise)


@pytest.mark.usefixtures("claims_too_much")
def test_copies_that_must_move_alike_are_tied_and_not_frozen():
    net = two_layers(blocks_of, 6)
    claimed = discover_symmetry(net, sample(), verify=False)
    assert [(group.size, group.copies) for group in claimed.groups] == [(3, 1), (2, 3)]
    assert claimed.verify(net, sample()) > 1e-2
    symmetry = discover_symmetry(net, sample())
    assert [(group.size, group.copies) for group in symmetry.groups] == [(3, 1), (2, 1)]
    assert symmetry.evidence["tied"] == [symmetry.groups[1].name]
    assert symmetry.evidence["failed"] == {}
    assert max(function_change(symmetry, net, seed) for seed in range(20)) < EXACT
    again = PermutationSymmetry.from_dict(symmetry.to_dict())
    assert again.random_permutation(0) == symmetry.random_permutation(0)


@pytest.mark.usefixtures("claims_too_much")
def test_tied_copies_are_aligned_without_harm():
    net = two_layers(blocks_of, 6)
    symmetry = discover_symmetry(net, sample())
    other = symmetry.apply(net, symmetry.random_permutation(3))
    aligner = PermutationAligner(symmetry=symmetry, random_state=0).fit(net, other)
    for one, two in zip(net.parameters(), aligner.transform(other).parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("forward", [rolled, crossed])
def test_specs_that_only_rotations_satisfy_are_refused(forward):
    with pytest.raises(SymmetryError, match=r"group 'h' changes .* that fail: 'h'\."):
        PermutationSymmetry.from_axes_to_perm(SPEC, two_layers(forward), sample())


def test_of_a_spec_only_the_wrong_group_is_named():
    def forward(net, x):
        return net.c(rolled(net, x).relu())

    net = Net(forward, a=nn.Linear(4, 3), b=nn.Linear(3, 5), c=nn.Linear(5, 2))
    spec = {**SPEC, "b.weight": ("g", "h"), "b.bias": ("g",), "c.weight": (None, "g")}
    with pytest.raises(SymmetryError, match=r"group 'h' changes .* that fail: 'h'\."):
        PermutationSymmetry.from_axes_to_perm(spec, net, sample())


def pooled(net, x):
    """Sums over pairs: three pairs in any order, the two of a pair in any order."""
    return net.b((net.a(x) * net.c(x)).view(-1, 3, 2).sum(-1).tanh())


def weighted(net, x):
    """The same with a weight of its own for every pair: they may not be exchanged."""
    h = (net.a(x) * net.c(x)).view(-1, 3, 2).sum(-1).tanh()
    return net.b(h * torch.tensor([1.0, 2.0, 3.0]))


def test_what_lies_within_a_wrong_group_is_kept_where_it_is_right():
    def net_of(forward):
        return Net(forward, a=nn.Linear(4, 6), c=nn.Linear(4, 6), b=nn.Linear(3, 2))

    claimed = discover_symmetry(net_of(pooled), sample(), verify=False)
    outer, inner = claimed.groups
    assert [(g.size, g.copies) for g in claimed.groups] == [(3, 1), (2, 3)]
    proof = prove(prover_of(net_of(weighted)), claimed.blocks, claimed.groups)
    assert list(proof.failed) == [outer.name]
    assert [group.name for group in proof.groups] == [inner.name]
    assert proof.tied == ()
    assert proof.error < EXACT


def test_a_fault_that_simple_elements_miss_is_found_by_halving():
    widths = [4, 6, 5, 7, 3, 2]
    layers = [nn.Linear(m, n) for m, n in zip(widths, widths[1:], strict=False)]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))
    claimed = discover_symmetry(net, sample(), verify=False)
    wrong = claimed.groups[2]
    still = Block("4.bias", (BlockAxis(np.arange(wrong.size), (None,)),))
    prover = prover_of(net)
    prover.alone = lambda mover, group: 0.0
    proof = prove(prover, {**claimed.blocks, "4.bias": (still,)}, claimed.groups)
    assert list(proof.failed) == [wrong.name]
    assert len(proof.groups) == len(claimed.groups) - 1
    assert proof.error < EXACT


def test_verify_sees_what_only_rotations_hide():
    symmetry = discover_symmetry(two_layers(plain), sample(), verify=False)
    assert symmetry.verify(two_layers(plain), sample()) < EXACT
    assert symmetry.verify(two_layers(rolled), sample()) > 1e-2


def test_another_forward_pass_is_seen_where_rotations_hide_it():
    symmetry = discover_symmetry(two_layers(plain), sample())
    with pytest.raises(ArchitectureMismatchError, match="another forward pass"):
        symmetry.check(two_layers(rolled))


def test_the_net_itself_is_moved_by_more_than_rotations():
    def hurried(net, x):
        return plain(net, x) if torch.compiler.is_compiling() else rolled(net, x)

    with pytest.raises(SymmetryError, match=r"units of group 'a' move .*another path"):
        discover_symmetry(two_layers(hurried), sample())


def test_evidence_counts_the_elements_of_every_kind():
    net = two_layers(blocks_of, 6)
    assert discover_symmetry(net, sample()).evidence["draws"]["uniform"] >= N_DRAWS
    net = Net(pooled, a=nn.Linear(4, 6), c=nn.Linear(4, 6), b=nn.Linear(3, 2))
    evidence = discover_symmetry(net, sample()).evidence
    assert evidence["draws"] == {
        "transposition": 2,
        "one copy": 1,
        "subset of copies": 1,
        "uniform": N_DRAWS,
    }
    assert evidence["n_draws"] == N_DRAWS + 4
    assert evidence["tied"] == []


def test_an_output_that_is_zero_up_to_rounding_freezes_nothing():
    def forward(net, x):
        h = net.a(x)
        return net.b(h.relu()), h.softmax(-1).sum(-1) - 1

    symmetry = discover_symmetry(two_layers(forward, 5), sample())
    assert [group.size for group in symmetry.groups] == [5]


def test_a_small_output_is_still_watched():
    large, small = torch.ones(3, dtype=torch.float64), 1e-12 * torch.ones(3, dtype=torch.float64)
    assert output_change([large, small], [large, 1.5 * small]) > TOLERANCE
    assert output_change([small], [1.5 * small]) == pytest.approx(0.5)
    assert output_change([large, 1e-16 * large], [large, 3e-16 * large]) < TOLERANCE


def test_units_that_no_output_sees_are_not_made_one():
    """Of what a mean keeps, only a part is read: no output tells which unit is which."""

    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(3, 6)
            self.register_buffer("mean", torch.zeros(6))
            self.out = nn.Linear(2, 2)

        def forward(self, x):
            first, second, third = self.hidden(x).chunk(3, -1)
            h = torch.cat([third, second.tanh(), first], -1)
            if self.training:
                self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
            return self.out((h - self.mean)[:, 2:4])

    net, x = Kept().double(), torch.randn(8, 3, dtype=torch.float64)
    symmetry = discover_symmetry(net, x)
    for seed in range(20):
        element = symmetry.random_permutation(seed)
        moved = symmetry.apply(net, element)
        after = {}
        for name, one in (("as it is", copy.deepcopy(net)), ("moved", moved)):
            one.train()(x)
            after[name] = {key: tensor.clone() for key, tensor in one.state_dict().items()}
        wanted = symmetry.apply_state(after["as it is"], element)
        torch.testing.assert_close(after["moved"]["mean"], wanted["mean"])
