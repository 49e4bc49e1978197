"""What holds of every path between nets, on random small nets with norm gains of both signs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sklmc import LMCScorer
from tests.random_nets import bits, labels, nets, samples

few = settings(
    max_examples=15,
    deadline=None,  # a first trace takes its time
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Outputs are float32: sums in another order, through one or two layers, move a loss by this part.
ROUNDING = 1e-5
METRICS = ("loss", "error", "calibrated_loss")
scorers = st.builds(
    LMCScorer,
    n_alphas=st.integers(2, 6),
    calibration=st.sampled_from([None, "in_sample", "crossfit"]),
    baseline=st.sampled_from(["linear", "mean", "max"]),
)
pytestmark = pytest.mark.slow


def quiet(score, *arguments):
    """Score nets; statistics of batch norm may be stale here, and that is said elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(*arguments)


def data(net):
    X = samples(net, 48)
    return X, labels(48)


def known(score):
    return [metric for metric in METRICS if getattr(score, metric) is not None]


@few
@given(nets(n=2), scorers)
def test_path_read_from_the_other_end_is_turned_round(pair, scorer):
    a, b = pair
    there = quiet(scorer.path, a, b, *data(a))
    back = quiet(scorer.path, b, a, *data(a))
    np.testing.assert_allclose(there.alphas, 1.0 - back.alphas[::-1], atol=1e-15)
    np.testing.assert_allclose(there.loss, back.loss[::-1], rtol=ROUNDING, atol=ROUNDING)
    assert there.barrier("linear") == pytest.approx(back.barrier("linear"), abs=10 * ROUNDING)


@few
@given(nets(n=2), scorers)
def test_ends_are_the_nets_themselves(pair, scorer):
    X, y = data(pair[0])
    score = quiet(scorer.path, *pair, X, y)
    for net, place in zip(pair, (0, -1)):
        with torch.no_grad():
            logits = net(torch.from_numpy(X)).double()
        loss = functional.cross_entropy(logits, torch.from_numpy(y)).item()
        assert score.loss[place] == pytest.approx(loss, rel=ROUNDING, abs=ROUNDING)
        assert score.error[place] == np.mean(logits.argmax(1).numpy() != y)


@few
@given(nets(), scorers)
def test_no_barrier_between_equal_nets(drawn, scorer):
    (net,) = drawn
    score = quiet(scorer.path, net, net, *data(net))
    for metric in known(score):
        assert score.barrier(metric=metric) == pytest.approx(0.0, abs=ROUNDING)
    assert score.is_connected(ROUNDING)


@few
@given(nets(n=2), scorers)
def test_barriers_are_never_negative_and_the_worse_end_is_the_higher_baseline(pair, scorer):
    before = [bits(net) for net in pair]
    score = quiet(scorer.path, *pair, *data(pair[0]))
    for metric in known(score):
        by = {name: score.barrier(name, metric) for name in ("linear", "mean", "max")}
        assert min(by.values()) >= 0.0
        assert by["max"] <= min(by["linear"], by["mean"]) + 1e-12
    assert score.minimum <= score.midpoint() <= score.maximum
    assert [bits(net) for net in pair] == before


@few
@given(nets(n=3), scorers)
def test_pairs_are_symmetric_and_each_is_its_path(three, scorer):
    X, y = data(three[0])
    score = quiet(scorer.pairwise, three, X, y)
    for matrix in (score.barrier, score.epsilon):
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == 0).all()
        assert (matrix >= 0).all()
    for i, j in score.pairs:
        alone = quiet(scorer.path, three[i], three[j], X, y)
        np.testing.assert_allclose(score.path(i, j).loss, alone.loss, rtol=ROUNDING, atol=ROUNDING)
        np.testing.assert_allclose(score.path(j, i).loss, score.path(i, j).loss[::-1])
