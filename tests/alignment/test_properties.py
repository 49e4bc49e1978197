"""What holds of every alignment, on random small nets with norm gains of both signs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklmc import MultiAligner, PermutationAligner
from sklmc.symmetry import discover_symmetry
from tests.random_nets import bits, labels, nets, samples

few = settings(
    max_examples=12,
    deadline=None,  # a first trace takes its time
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32 - 1)
methods = st.sampled_from(["weight", "activation", "straight_through"])
ROUNDING = 1e-9  # of sums in float64, relative to an objective
pytestmark = pytest.mark.slow


def fit(method, a, b, **options):
    X = samples(a, 60)
    aligner = PermutationAligner(method, max_iter=5, random_state=0, **options)
    return aligner.fit(a, b, X, labels(60))


@few
@given(nets(n=2), methods)
def test_objective_never_falls_and_inputs_stay(pair, method):
    before = [bits(net) for net in pair]
    path = fit(method, *pair).objective_path_
    assert (np.diff(path) >= -ROUNDING * np.abs(path[:-1])).all()
    assert [bits(net) for net in pair] == before


@few
@given(nets(n=2), seeds)
def test_objective_never_falls_from_any_start(pair, seed):
    a, b = pair
    symmetry = discover_symmetry(b, samples(b, 8))
    path = fit("weight", a, b, init=symmetry.random_permutation(seed)).objective_path_
    assert (np.diff(path) >= -ROUNDING * np.abs(path[:-1])).all()


@few
@given(nets(), seeds, st.sampled_from(["weight", "activation"]))
def test_planted_permutation_is_met_by_the_objective(drawn, seed, method):
    """Where units tie, another permutation serves as well; none that is worse is kept."""
    (a,) = drawn
    symmetry = discover_symmetry(a, samples(a, 8))
    planted = symmetry.random_permutation(seed)
    b = symmetry.apply(a, planted)
    found = fit(method, a, b)
    at_planted = fit(method, a, b, init=planted.inverse()).objective_path_[0]
    assert found.objective_ >= at_planted - ROUNDING * abs(at_planted)


@few
@given(nets(n=2), methods)
def test_transform_then_inverse_is_the_identity_bit_for_bit(pair, method):
    a, b = pair
    aligner = fit(method, a, b)
    assert bits(aligner.inverse_transform(aligner.transform(b))) == bits(b)
    assert bits(aligner.transform(aligner.inverse_transform(a))) == bits(a)


@few
@given(nets(n=3), st.sampled_from(["merge_many", "reference"]))
def test_many_nets_come_back_bit_for_bit(three, method):
    X = samples(three[0], 20)
    aligner = MultiAligner(method, max_iter=3, random_state=0).fit(three, X)
    before = [bits(net) for net in three]
    back = aligner.inverse_transform(aligner.transform(three))
    assert [bits(net) for net in back] == before == [bits(net) for net in three]
    path = aligner.objective_path_
    assert (np.diff(path) >= -ROUNDING * np.abs(path[:-1])).all()
