"""Causes of barriers are found where they were planted."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklmc import NetRegressor
from sklmc.features import explain_barrier
from sklmc.features._explain._cause_search import measures_of, rises_between
from sklmc.features._explain._evidence import frozen_share, order_share
from sklmc.features._explain._split_samples import Score, SplitSamples
from sklmc.models import Arrays, view
from sklmc.symmetry import discover_symmetry
from tests.features import planted
from tests.features.nets import mlp, samples
from tests.models.conftest import snapshot


def explained(situation, seed):
    a, b = situation(seed)
    return explain_barrier(a, b, *planted.data()[2:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "situation",
    [s for s in planted.SITUATIONS if s is not planted.variance_collapse],
    ids=lambda s: s.__name__,
)
def test_planted_cause_comes_first(situation):
    report = explained(situation, 0)
    assert report.causes[0].name == situation.__name__


@pytest.mark.slow
def test_collapse_is_told_from_different_features():
    report = explained(planted.variance_collapse, 0)
    first = report.causes[0]
    assert first.name == "variance_collapse"
    assert first.measured < 0.7
    assert "repair='renormalize'" in first.remedy
    assert report.layers.variance_ratio.is_monotonic_decreasing


@pytest.mark.nightly
def test_planted_causes_over_five_seeds():
    found = {
        (situation.__name__, seed): [cause.name for cause in explained(situation, seed).causes]
        for situation in planted.SITUATIONS
        for seed in range(5)
    }
    confused = {key: names for key, names in found.items() if names[:1] != [key[0]]}
    assert len(confused) <= 4, confused


def test_report_in_words_and_as_tables():
    a, b = planted.not_aligned(0)
    report = explain_barrier(a, b, *planted.data()[2:])
    frame = report.to_frame()
    assert frame["rank"].tolist() == list(range(1, len(report.causes) + 1))
    assert frame.columns.tolist() == [
        *("rank", "name", "share", "measured", "reference", "evidence", "remedy"),
    ]
    text = str(report)
    assert "not_aligned" in text
    assert "variance_collapse" not in text
    assert "PermutationAligner" in text
    middle = report.measures.set_index("net").loss
    ends = (middle["A"] + middle["B"]) / 2
    assert report.barrier == pytest.approx(middle["midpoint"] - ends)
    assert middle["midpoint, aligned"] < ends + 0.1 * report.barrier
    assert report.layers.layer.tolist() == ["layers.0", "layers.2", "layers.4"]
    assert (report.layers.correlation_aligned[:2] > 0.9).all()
    assert (report.layers.correlation[:2] < 0.3).all()


def too_sure(net, factor):
    """A copy of the same predictions whose last layer, and so its logits, are larger."""
    look = view(net, caller="f")
    last = list(look.state)[-2:]
    return look.rebuild({k: t * factor if k in last else t for k, t in look.state.items()})


class Twice(torch.nn.Module):
    """Says what a net says, for two tokens."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = self.net(x)
        return torch.stack([z, z], dim=1)


def hidden_barrier(width, seed, order):
    """A net that is too sure of itself and its copy with permuted units."""
    a = too_sure(planted.trained(seed, width=width, depth=1), 12.0)
    symmetry = discover_symmetry(a)
    return a, symmetry.apply(a, symmetry.random_permutation(order))


@pytest.mark.parametrize("width, seed, order", [(64, 0, 0), (48, 0, 1), (48, 2, 3)])
def test_barrier_that_over_confident_ends_hide_in_the_loss(width, seed, order):
    report = explain_barrier(*hidden_barrier(width, seed, order), *planted.data()[2:])
    assert report.barrier < 0
    assert [cause.name for cause in report.causes] == ["not_aligned"]
    assert report.causes[0].share > 0.9
    rises = report.rises.set_index("measure")
    assert rises.rose[["loss", "calibrated_loss"]].tolist() == [False, True]
    ends, middle = rises.loc["calibrated_loss", ["ends", "midpoint"]]
    text = str(report)
    assert f"- calibrated loss rises: {ends:.3g} to {middle:.3g}" in text
    assert "- loss does not rise" in text
    assert "Over-confident ends hide the barrier" in text


def test_barrier_of_several_tokens_is_calibrated_too():
    X, y = planted.data()[2:]
    pair = hidden_barrier(64, 0, 0)
    one = explain_barrier(*pair, X, y)
    two = explain_barrier(*(Twice(net.module_) for net in pair), X, np.stack([y, y], axis=1))
    assert [cause.name for cause in two.causes] == ["not_aligned"]
    # the half sample imagined for the inverse temperature weighs less among twice as many
    pd.testing.assert_frame_equal(two.rises, one.rises, rtol=0.01)


@pytest.mark.parametrize(
    "midpoint, measures",
    [
        (Score(0.2, 0.21, 0.10), ("error", "error")),
        (Score(0.2, 0.40, 0.10), ("calibrated", "calibrated")),
        (Score(0.9, 0.40, 0.10), ("loss", "calibrated")),
        (Score(0.9, 0.21, 0.10), ("loss", "error")),
        (Score(0.9, 0.21, 0.05), ("loss", "calibrated")),
        (Score(0.3, 0.21, 0.05), ("loss", "calibrated")),
    ],
)
def test_a_barrier_is_measured_in_what_rises(midpoint, measures):
    rises = rises_between(Score(0.3, 0.2, 0.05), midpoint, Score(2.0, 2.0, 0.9))
    assert measures_of(rises) == measures


def test_each_measure_is_judged_and_the_first_that_rises_counts():
    a, b = planted.not_aligned(0)
    rises = explain_barrier(a, b, *planted.data()[2:]).rises
    assert rises.measure.tolist() == ["loss", "calibrated_loss", "error"]
    assert rises.rose.all()
    assert (rises.midpoint > rises.ends).all()


def test_equal_nets_have_nothing_to_explain_and_are_left_alone():
    net = planted.trained(0, width=16, depth=1)
    other = copy.deepcopy(net)
    before = snapshot(net.module_)
    report = explain_barrier(net, other, *planted.data()[2:])
    assert snapshot(net.module_) == before
    assert report.causes == ()
    assert str(report).startswith("There is nothing to explain")
    assert not report.rises.rose.any()


def test_unequal_ends_are_named_with_the_worse_one():
    a = planted.trained(0, width=32, depth=2)
    b = planted.trained(1, max_epochs=2, lr=0.002, width=32, depth=2)
    first = explain_barrier(a, b, *planted.data()[2:]).causes[0]
    assert first.name == "under_trained"
    assert first.evidence.startswith("B removes")
    assert np.isnan(first.share)


def test_same_answer_twice_and_for_pipelines():
    a, b = planted.local_optimum(1)
    _, _, X, y = planted.data()
    first, second = (explain_barrier(a, b, X, y).to_frame() for _ in range(2))
    assert first.equals(second)
    halved = FunctionTransformer(lambda x: x / 2)
    through = [make_pipeline(halved, net) for net in (a, b)]
    assert explain_barrier(*through, 2 * X, y).to_frame().equals(first)


def test_regression_has_no_scale_of_logits():
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    y = np.abs(X[:, 0]) + X[:, 1]
    a = NetRegressor(max_epochs=20, module__width=16, random_state=0).fit(X, y)
    symmetry = discover_symmetry(a)
    b = symmetry.apply(a, symmetry.random_permutation(0))
    report = explain_barrier(a, b, X, y)
    assert [cause.name for cause in report.causes] == ["not_aligned"]
    assert report.rises.measure.tolist() == ["loss"]


def test_order_share_of_known_orders():
    a = mlp(0, width=16)
    symmetry = discover_symmetry(a)
    b = symmetry.apply(a, symmetry.random_permutation(0))
    states = [view(net, caller="f").state for net in (a, a, b)]
    assert order_share(symmetry, states[0], states[1], states[0]) == pytest.approx(1.0)
    assert abs(order_share(symmetry, states[0], states[2], states[0])) < 0.3


def test_share_of_frozen_axes():
    assert frozen_share(discover_symmetry(mlp(0))) == 0
    assert frozen_share(discover_symmetry(planted.OrderCounts())) == 1


def test_scores_on_the_other_half():
    net, x = mlp(0), samples(400)
    y = net(x).argmax(dim=1)
    split = SplitSamples(view(net, caller="f"), Arrays(x), y)
    assert len(split.data) == len(split.fit_data) == 200
    rows = torch.cat([split.data.args[0], split.fit_data.args[0]])
    assert len(torch.unique(rows, dim=0)) == 400
    score = split.score(view(net, caller="f").state)
    assert score.error == 0
    assert score.loss >= score.calibrated
    shares = torch.bincount(y).double() / 400
    shares = shares[shares > 0]
    assert split.constant().loss == pytest.approx(float(-(shares * shares.log()).sum()))


def test_bad_input_is_named():
    a, b, x = mlp(0), mlp(1), samples(60)
    y = np.arange(60) % 4
    with pytest.raises(ValueError, match="too few: at least 40"):
        explain_barrier(a, b, x[:20], y[:20])
    with pytest.raises(ValueError, match="different architecture"):
        explain_barrier(a, mlp(1, width=9), x, y)
    with pytest.raises(ValueError, match="60 and 50"):
        explain_barrier(a, b, x, y[:50])
    with pytest.raises(ValueError, match="label 7"):
        explain_barrier(a, b, x, np.full(60, 7))
