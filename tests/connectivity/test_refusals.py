"""What LMCScorer refuses, and what it reports of pairs that fail."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import nn

from sklmc import (
    LMCScorer,
    NetClassifier,
)
from sklmc._torch import seeded
from sklmc.exceptions import (
    ArchitectureMismatchError,
    NonFiniteError,
    NonFiniteLossWarning,
    PairFailedWarning,
)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"n_alphas": 1}, "'n_alphas' parameter of LMCScorer must be an int in the range"),
        ({"n_alphas": 5.0}, "'n_alphas' parameter of LMCScorer must be an int"),
        ({"metric": "accuracy"}, "'metric' parameter of LMCScorer must be a str among"),
        ({"baseline": "lin"}, "'baseline' parameter of LMCScorer must be a str among"),
        ({"repair": "refit"}, "'repair' parameter of LMCScorer must be a str among"),
        ({"calibration": "cross"}, "'calibration' parameter of LMCScorer must be"),
        ({"calibration": (1, 2, 3)}, r"'calibration' must be the pair \(X_cal, y_cal\)"),
        (
            {"aligner": "wait"},
            "'aligner' must be one of 'weight', .*got 'wait'. Did you mean 'weight'",
        ),
        ({"aligner": 3}, "'aligner' parameter of LMCScorer must be"),
        ({"output": "barrier"}, "'output' parameter of LMCScorer must be a str among"),
    ],
)
def test_bad_parameters_are_named(nets, moons, arguments, text):
    with pytest.raises(ValueError, match=text):
        LMCScorer(**arguments).path(nets[0], nets[1], *moons)


def test_bad_data_are_named(nets, moons):
    X, y = moons
    scorer = LMCScorer()
    with pytest.raises(ValueError, match="'X' and 'y' must have the same length, got 120 and 119"):
        scorer.path(nets[0], nets[1], X, y[:-1])
    with pytest.raises(ValueError, match=r"[Ll]abel.*\b7\b|\b7\b.*label"):
        scorer.path(nets[0], nets[1], X, np.where(y == 0, 7, y))
    with pytest.raises(ValueError, match=r"minimum of 1 is required|at least one sample"):
        scorer.path(nets[0], nets[1], X[:0], y[:0])
    with pytest.raises(ValueError, match="NaN"):
        scorer.path(nets[0], nets[1], np.full_like(X, np.nan), y)
    with pytest.raises(ValueError, match="features"):
        scorer.path(nets[0], nets[1], X[:, :1], y)
    with pytest.raises(ValueError, match="'X' and 'y' must have the same length, got 3 and 2"):
        LMCScorer(calibration=(X[:3], y[:2])).path(nets[0], nets[1], X, y)
    with pytest.raises(ValueError, match="needs at least 2 samples, got 1"):
        LMCScorer(calibration="crossfit").path(nets[0], nets[1], X[:1], y[:1])


def test_labels_a_plain_module_does_not_have(make_mlps, data):
    X, y = data
    a, b = make_mlps(2)
    with pytest.raises(ValueError, match="holds label 3, but the net has 3 outputs"):
        LMCScorer().path(a, b, X, y + 1)
    with pytest.raises(TypeError, match="a plain module knows no classes"):
        LMCScorer().path(a, b, X, y.astype(str))


def test_bad_models_are_named(nets, moons):
    X, y = moons
    scorer = LMCScorer()
    with pytest.raises(NotFittedError, match="'model_b' is a NetClassifier that is not fitted"):
        scorer.path(nets[0], NetClassifier(), X, y)
    with pytest.raises(TypeError, match=r"'model_a' must be a fitted skorch net, .* got Logi"):
        scorer.path(LogisticRegression().fit(X, y), nets[0], X, y)
    with pytest.raises(ValueError, match="'models' must hold at least 2 models, got 1"):
        scorer.pairwise(nets[:1], X, y)
    with pytest.raises(TypeError, match="'models' must be a list of models, got NetClassifier"):
        scorer.pairwise(nets[0], X, y)
    with pytest.raises(TypeError, match=r"must have 'estimators_'.*got NetClassifier"):
        scorer(nets[0], X, y)


def test_models_that_do_not_fit_together_are_named_with_the_first_difference(nets, moons):
    X, y = moons
    wide = NetClassifier(random_state=0, module__width=4, max_epochs=3).fit(X, y)
    text = r"'models\[0\]' and 'models\[2\]' .* shape of tensor 'layers.0.weight' is \(8, 2\) and"
    with pytest.raises(ArchitectureMismatchError, match=text):
        LMCScorer().pairwise([nets[0], nets[1], wide], X, y)
    other = NetClassifier(module__width=8, max_epochs=1).fit(X, y + 5)
    with pytest.raises(
        ArchitectureMismatchError, match=r"have different classes_: \[0, 1\] and \[5, 6\]"
    ):
        LMCScorer().path(nets[0], other, X, y)


def diverged(net):
    """A copy of a net with a NaN among its weights."""
    bad = copy.deepcopy(net)
    with torch.no_grad():
        next(bad.module_.parameters())[0, 0] = torch.nan
    return bad


def test_net_that_diverged_is_named(nets, moons):
    with pytest.raises(NonFiniteError, match=r"'layers.0.weight' of 'models\[1\]' holds 1 values"):
        LMCScorer().pairwise([nets[0], diverged(nets[1]), nets[2]], *moons)


def test_pair_that_fails_does_not_lose_the_others(nets, moons):
    bad = [nets[0], diverged(nets[1]), nets[2], nets[3]]
    text = r"\('models\[0\]', 'models\[1\]'\), .* could not be scored and gets error_score=nan"
    with pytest.warns(PairFailedWarning, match=text):
        score = LMCScorer(error_score=np.nan).pairwise(bad, *moons)
    wanted = LMCScorer().pairwise(nets, *moons)
    assert np.isnan(score.barrier[1, [0, 2, 3]]).all()
    kept = np.ix_([0, 2, 3], [0, 2, 3])
    np.testing.assert_array_equal(score.barrier[kept], wanted.barrier[kept])
    failure = score.to_frame().set_index(["model_a", "model_b"])["failure"]
    assert "layers.0.weight" in failure[0, 1]
    assert pd.isna(failure[0, 2])
    with pytest.warns(PairFailedWarning):
        assert LMCScorer(error_score=9.0).pairwise(bad, *moons).epsilon[1, 2] == 9.0


class Stubborn:
    """An aligner that fails on the nets of one seed."""

    def __init__(self, seed_bias=None):
        self.seed_bias = seed_bias

    def get_params(self, deep=False):
        return {"seed_bias": self.seed_bias}

    def fit(self, a, b, X=None, y=None):
        if b.layers[0].bias[0].item() == self.seed_bias:
            raise RuntimeError("cannot align")
        return self

    def transform(self, model):
        return model


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_aligner_that_fails_on_a_pair(nets, moons, n_jobs):
    bias = nets[2].module_.layers[0].bias[0].item()
    with pytest.warns(PairFailedWarning, match="RuntimeError: cannot align"):
        score = LMCScorer(aligner=Stubborn(bias), error_score=np.nan, n_jobs=n_jobs).pairwise(
            nets, *moons
        )
    assert set(score.failures) == {(0, 2), (1, 2)}
    np.testing.assert_allclose(
        score.barrier[0, 1], LMCScorer().pairwise(nets, *moons).barrier[0, 1]
    )
    with pytest.raises(RuntimeError, match="cannot align"):
        LMCScorer(aligner=Stubborn(bias), n_jobs=n_jobs).pairwise(nets, *moons)


def test_nothing_that_can_be_scored_is_an_error(nets, moons):
    bad = [diverged(net) for net in nets[:2]]
    with pytest.raises(ValueError, match=r"no model can be scored.*layers.0.weight"):
        LMCScorer(error_score=np.nan).pairwise(bad, *moons)
    with pytest.raises(ValueError, match="no pair could be scored"):
        LMCScorer(error_score=np.nan).pairwise([nets[0], bad[1]], *moons)


def test_loss_that_overflows_is_reported_and_kept(data):
    X, y = data
    with seeded(0):
        nets = [nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 3)) for _ in range(3)]
    with torch.no_grad():
        for sign, net in zip((1, 1, 1e-25), nets):
            net[0].weight.fill_(sign * 3e25)
            net[1].weight[:] = torch.tensor([[1.0], [-1.0], [0.5]]) * 3e25
            net[1].weight *= 1 if sign == 1 else 1e-25
        nets[1][1].weight *= -1
    with pytest.warns(NonFiniteLossWarning, match=r"path of \('models\[0\]', 'models\[1\]'\)"):
        score = LMCScorer().pairwise(nets, X, y)
    assert len(score.to_frame()) == 3
    assert np.isnan(score.barrier[0, 1]) or np.isinf(score.barrier[0, 1])


def test_progress_is_shown_on_demand_only(nets, moons, capsys):
    LMCScorer().pairwise(nets, *moons)
    assert capsys.readouterr().err == ""
    LMCScorer(verbose=1).pairwise(nets, *moons)
    assert "6/6" in capsys.readouterr().err
