"""What holds of every merge, on random small nets with norm gains of both signs."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklmc import average_models, merge_models
from sklmc._validation import check_weights
from sklmc.merging import repair
from sklmc.models import view
from sklmc.symmetry import discover_symmetry
from tests.models.conftest import snapshot
from tests.random_nets import bits, labels, nets, samples

METHODS = ["weight", "activation", "straight_through", "auto"]
EXACT = ["weight", "straight_through", "auto", "merge_many"]  # they find a planted permutation
REPAIRS = ["auto", "batch_norm", "refit", "renormalize", None]
# float64 sums in another order, rounded to float32 once: the last bit, relative to the largest
LAST_BIT = 2 * torch.finfo(torch.float32).eps

# ten nets a test in `make test`; no deadline, since a first trace takes its time
few = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning"),
]


def shares(n):
    """Weights of a mean that are not all zero, the huge and the tiny among them."""
    number = st.floats(0, 1e308) | st.sampled_from([0.0, 1.0, 1e-300, 1e308])
    return st.lists(number, min_size=n, max_size=n).filter(any)


def distance(one, other):
    """Largest difference of any tensor, relative to the largest number in it."""
    pairs = zip(view(one, caller="f").state.values(), view(other, caller="f").state.values())
    return max(
        float((a - b).abs().max() / max(float(a.abs().max()), 1e-30))
        for a, b in pairs
        if a.is_floating_point()
    )


@few
@given(shares(3))
def test_weights_sum_to_one_and_keep_their_ratios(weights):
    found = check_weights(weights, 3, "f")
    assert abs(found.sum() - 1) < 1e-15
    assert ((found == 0) | (np.array(weights) > 0)).all()
    assert (np.argsort(found, kind="stable") == np.argsort(weights, kind="stable")).all()


@few
@given(nets(), st.sampled_from([*METHODS, "merge_many", None]), st.sampled_from(REPAIRS))
def test_merge_of_one_net_is_that_net(drawn, aligner, method):
    (net,) = drawn
    X = samples(net)
    merged = merge_models([net], X, labels(len(X)), aligner=aligner, repair=method)
    assert merged is not net
    assert bits(merged) == bits(net)


@settings(few, max_examples=25)
@given(
    nets(),
    st.integers(2, 3).flatmap(shares),
    st.sampled_from([*METHODS, "merge_many", None]),
    st.sampled_from(REPAIRS),
)
def test_merge_of_equal_nets_is_that_net(drawn, weights, aligner, method):
    (net,) = drawn
    X = samples(net)
    equal = [net, *(copy.deepcopy(net) for _ in weights[1:])]
    merged = merge_models(equal, X, labels(len(X)), aligner=aligner, repair=method, weights=weights)
    assert bits(merged) == bits(net)


@settings(few, max_examples=25)
@given(nets(), st.integers(0, 99), st.sampled_from(EXACT), st.sampled_from(REPAIRS))
def test_merge_of_permuted_copies_is_the_reference(drawn, seed, aligner, method):
    """Weights say where every unit went; activations do not, of units that never change."""
    (net,) = drawn
    X = samples(net)
    symmetry = discover_symmetry(net, X)
    copies = [symmetry.apply(net, symmetry.random_permutation(seed + k)) for k in range(2)]
    merged = merge_models([net, *copies], X, labels(len(X)), aligner=aligner, repair=method)
    assert bits(merged) == bits(net)


@few
@given(nets(n=4), shares(4), st.permutations(range(4)))
def test_order_does_not_matter_to_an_average(models, weights, order):
    one = average_models(models, weights)
    other = average_models([models[k] for k in order], [weights[k] for k in order])
    assert distance(one, other) < LAST_BIT


@few
@given(nets(n=3), st.sampled_from(["weight", "activation"]))
def test_order_behind_the_reference_does_not_matter(models, aligner):
    """Each is aligned with the first alone."""
    first, *others = models
    X = samples(first)
    one, other = (
        merge_models([first, *rest], X, aligner=aligner, repair=None)
        for rest in (others, others[::-1])
    )
    assert distance(one, other) < LAST_BIT


@few
@given(nets(n=3), st.sampled_from(["weight", "auto", "merge_many"]), st.sampled_from(REPAIRS))
def test_nothing_handed_in_is_changed_and_nothing_is_left_to_chance(models, aligner, method):
    X = samples(models[0])
    y, weights = labels(len(X)), np.array([1.0, 2.0, 3.0])
    before = [snapshot(model) for model in models], X.tobytes(), y.tobytes(), weights.tobytes()
    options = {"aligner": aligner, "repair": method, "weights": weights}
    merged = merge_models(models, X, y, **options)
    assert bits(merge_models(models, X, y, **options)) == bits(merged)
    after = [snapshot(model) for model in models], X.tobytes(), y.tobytes(), weights.tobytes()
    assert after == before


@few
@given(nets(n=2), st.sampled_from(REPAIRS[:-1]))
def test_repair_keeps_shapes_and_stays_finite(models, method):
    X = samples(models[0])
    mean = average_models(models)
    before = snapshot(mean)
    repaired = repair(mean, models, X, method=method)
    assert snapshot(mean) == before
    for name, tensor in repaired.state_dict().items():
        assert tensor.shape == mean.state_dict()[name].shape
        assert torch.isfinite(tensor).all()
