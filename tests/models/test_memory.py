"""Nets that keep a state between calls are run from a reset state, every time."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import LMCScorer, PermutationAligner, discover_symmetry, merge_models
from sklmc.models import Reader, run_module, view

X = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32))
Y = np.arange(12) % 2
SAME = 1e-6


class Keeps(nn.Module):
    """A hidden layer that adds what the last call left, kept in one of many ways."""

    def __init__(self, how, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.how = how
        self.into, self.out = nn.Linear(3, 5), nn.Linear(5, 2)
        self.state = nn.LSTM(5, 5) if how == "lstm" else None
        if how in ("buffer", "in place"):
            self.register_buffer("h", torch.zeros(5))
        else:
            self.h = {"zeros": torch.zeros(1, 5), "list": []}.get(how)

    def forward(self, x):
        x = self.into(x)
        if self.how == "lstm":
            x, self.h = self.state(x, self.h)
        elif self.how == "list":
            x = x + sum(self.h)
            self.h.append(x.mean(0))
        elif self.how == "in place":
            x = x + self.h
            self.h.add_(x.mean(0))
        elif self.how == "zeros":
            x = x + self.h
            self.h = x.mean(0, keepdim=True)
        else:
            x = x if self.h is None else x + self.h
            self.h = x if self.how == "rows" else x.mean(0)
        return self.out(x.relu())


HOW = ["plain", "lstm", "list", "buffer", "in place", "zeros", "rows"]


def first_output(net):
    with torch.no_grad():
        return copy.deepcopy(net)(X)


@pytest.fixture(params=HOW)
def net(request):
    return Keeps(request.param)


def test_every_pass_is_a_first_pass(net):
    wanted = first_output(net)
    before = copy.deepcopy(vars(net))
    look = view(net, caller="f")
    for _ in range(3):
        assert torch.equal(run_module(look, (X,)), wanted)
        assert torch.equal(run_module(look, (X,), look.state), wanted)
    assert str(vars(net)) == str(before)


def test_a_state_that_is_given_is_not_written_into(net):
    look = view(net, caller="f")
    state = {name: tensor.clone() for name, tensor in look.state.items()}
    first = run_module(look, (X,), state)
    assert torch.equal(run_module(look, (X,), state), first)
    assert all(torch.equal(state[name], tensor) for name, tensor in look.state.items())


def test_a_pass_that_is_watched_or_cut_off_leaves_nothing(net):
    wanted = first_output(net)
    look = view(net, caller="f")
    with Reader(look, outputs=["into", "out"]) as reader:
        for _ in range(2):
            assert torch.equal(reader.run((X,)).outputs["out"], wanted)
    assert torch.equal(run_module(look, (X,)), wanted)


@pytest.mark.parametrize("how", [how for how in HOW if how != "zeros"])
def test_what_an_earlier_call_left_is_no_state_to_begin_with(how):
    net = Keeps(how)
    wanted = first_output(net)
    if how not in ("buffer", "in place", "list"):  # their first value cannot be known
        net(X[:7])
        assert torch.equal(run_module(view(net, caller="f"), (X,)), wanted)


def test_leftovers_that_do_not_fit_are_named():
    net = Keeps("zeros")
    net.h = torch.zeros(7, 5)
    with pytest.raises(ValueError, match=r"cannot run on 'X'.*earlier call \('h'\): reset it"):
        run_module(view(net, caller="f"), (X,))


def test_symmetry_alignment_merge_and_path(net):
    symmetry = discover_symmetry(net, X)
    sizes = [group.size for group in symmetry.groups]
    assert sizes == ([5] * len(sizes) if net.how == "lstm" else [5])
    moved = symmetry.apply(net, symmetry.random_permutation(random_state=0))
    assert torch.allclose(first_output(moved), first_output(net), atol=SAME)
    back = PermutationAligner("activation").fit_transform(net, moved, X)
    assert torch.allclose(first_output(merge_models([net, back], X)), first_output(net), atol=1e-5)
    score = LMCScorer(aligner="weight").path(net, Keeps(net.how, seed=1), X, Y)
    loss = nn.functional.cross_entropy(first_output(net), torch.from_numpy(Y))
    assert score.loss[0] == pytest.approx(float(loss), rel=1e-5)


def test_a_state_of_two_parts_that_must_be_tensors_begins_as_it_was_handed_in():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
            self.h, self.c = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)

        def forward(self, x):
            x, (self.h, self.c) = self.lstm(x, (self.h, self.c))
            return self.out(x)[0]

    songs = [(torch.randn(1, 5, 3),), (torch.randn(1, 7, 3),)]
    symmetry = discover_symmetry(Pair(), songs)
    assert [group.size for group in symmetry.groups] == [4]
    merged = merge_models([Pair(), Pair()], songs, aligner="activation", repair=None)
    assert merged(songs[1][0]).shape == (7, 2)
