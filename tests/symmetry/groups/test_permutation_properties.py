"""Permutations obey the laws of a group, and act on nets as the laws say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sklmc import Permutation
from sklmc.exceptions import PermutationError
from sklmc.symmetry import PermutationGroup, discover_symmetry
from tests.random_nets import bits, draw_tensors, nets, samples

few = settings(
    max_examples=25,
    deadline=None,  # a first trace takes its time
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def groups(draw):
    """Draw plain groups, and structured ones with copies: within a group, a fixed axis, or both."""
    plain, heads, inside, fixed = (draw(st.integers(1, 4)) for _ in range(4))
    return (
        PermutationGroup("plain", plain),
        PermutationGroup("heads", heads),
        PermutationGroup("in heads", inside, ("heads",), (heads,)),
        PermutationGroup("in a fixed axis", inside, ("axis",), (fixed,)),
        PermutationGroup("in both", plain, ("heads", "axis"), (heads, fixed)),
    )


def drawn(found, seed) -> Permutation:
    random = np.random.RandomState(seed)
    return Permutation({group.name: group.draw(random) for group in found}, found)


@few
@given(groups(), seeds, seeds, seeds)
def test_composition_is_associative(found, one, two, three):
    p, q, r = (drawn(found, seed) for seed in (one, two, three))
    assert p.compose(q).compose(r) == p.compose(q.compose(r))


@few
@given(groups(), seeds)
def test_identity_is_neutral_and_moves_nothing(found, seed):
    p, identity = drawn(found, seed), Permutation({}, found)
    assert p.compose(identity) == p == identity.compose(p)
    assert identity.n_moved == 0


@few
@given(groups(), seeds)
def test_inverse_undoes_on_both_sides(found, seed):
    p, identity = drawn(found, seed), Permutation({}, found)
    assert p.inverse().compose(p) == identity == p.compose(p.inverse())
    assert p.inverse().inverse() == p


@few
@given(groups(), seeds, seeds)
def test_inverse_of_a_product_is_the_product_of_inverses_turned_round(found, one, two):
    p, q = drawn(found, one), drawn(found, two)
    assert p.compose(q).inverse() == q.inverse().compose(p.inverse())


@few
@given(groups(), seeds, st.dictionaries(st.text(), st.integers() | st.text()))
def test_file_holds_what_was_saved(tmp_path, found, seed, record):
    p = drawn(found, seed)
    p = Permutation(dict(p), found, record)
    p.save(tmp_path / "p.safetensors")
    again = Permutation.load(tmp_path / "p.safetensors")
    assert again == p
    assert again.groups == p.groups
    assert again.record == record


@few
@given(groups(), seeds, st.data())
def test_what_repeats_an_index_is_refused(found, seed, data):
    movable = [group for group in found if group.size > 1]
    if not movable:
        return
    group = data.draw(st.sampled_from(movable))
    array = group.draw(np.random.RandomState(seed))
    array[..., 0] = array[..., 1]
    with pytest.raises(PermutationError, match="every index must occur once"):
        Permutation({group.name: array}, found)


# -- action on nets --------------------------------------------------------------------------


class Heads(nn.Module):
    """Units in heads, of which each is normalised by itself: one permutation per head."""

    def __init__(self, n_heads, size):
        super().__init__()
        self.shape = (-1, n_heads, size)
        self.into = nn.Linear(3, n_heads * size)
        self.out = nn.Linear(n_heads * size, 2)

    def forward(self, x):
        return self.out(self.into(x).view(self.shape).softmax(-1).flatten(1))


@st.composite
def subjects(draw):
    """Draw a chain, a convolution net, a residual net, or one with structured groups."""
    if draw(st.booleans()):
        (net,) = draw(nets())
        return net
    return draw_tensors(Heads(draw(st.integers(2, 3)), draw(st.integers(2, 4))), draw(seeds))


def symmetry_of(net):
    return discover_symmetry(net, samples(net, 4))


@pytest.mark.slow
@few
@given(subjects(), seeds, seeds)
def test_product_acts_as_one_after_the_other(net, one, two):
    symmetry = symmetry_of(net)
    p, q = symmetry.random_permutation(one), symmetry.random_permutation(two)
    at_once = symmetry.apply(net, p.compose(q))
    assert bits(at_once) == bits(symmetry.apply(symmetry.apply(net, q), p))


@pytest.mark.slow
@few
@given(subjects(), seeds)
def test_inverse_brings_every_bit_back_and_leaves_the_net_alone(net, seed):
    before, symmetry = bits(net), symmetry_of(net)
    p = symmetry.random_permutation(seed)
    assert bits(symmetry.apply(symmetry.apply(net, p), p.inverse())) == before
    assert bits(symmetry.apply(net, symmetry.identity())) == before
    assert bits(net) == before
