"""Greedy soups of fitted nets: what stands for them, what they are scored by, what is said."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone, is_classifier
from sklearn.ensemble import BaggingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklmc import (
    DeepEnsemble,
    GreedySoup,
    ModelGrid,
    NetClassifier,
    NetRegressor,
    average_models,
    merge_models,
)
from sklmc.exceptions import ArchitectureMismatchError, NonFiniteError
from tests.merging.runs import X, Y, bits

TRAIN, HELD = slice(0, 40), slice(40, 60)


def net(seed=0, **parameters):
    return NetClassifier(
        **{"module__width": 6, "max_epochs": 3, "random_state": seed, **parameters}
    )


@pytest.fixture(scope="module")
def nets():
    return [net(seed).fit(X[TRAIN], Y[TRAIN]) for seed in range(4)]


def soup(given, **parameters):
    return GreedySoup(given, **parameters).fit(X[HELD], Y[HELD])


def prefers(*wanted):
    """Return a scorer that likes the mean of some nets most, and each of them more than others."""

    def score(model, X, y):
        if bits(model) == bits(average_models(wanted)):
            return 9.0
        alone = [bits(model) == bits(one) for one in wanted]
        return float(any(alone) and 1 + alone.index(True) / 10)

    return score


# what stands for them


def test_nets_in_a_list_are_scored_as_they_are(nets):
    before = [bits(one) for one in nets]
    fitted = soup(nets)
    assert fitted.scores_.tolist() == [one.score(X[HELD], Y[HELD]) for one in nets]
    assert fitted.uniform_score_ == average_models(nets).score(X[HELD], Y[HELD])
    assert fitted.soup_score_ == fitted.score(X[HELD], Y[HELD]) >= fitted.scores_.max()
    assert [bits(one) for one in fitted.estimators_] == before == [bits(one) for one in nets]
    assert fitted.soup_report_["net"].tolist() == [f"member_{k}" for k in range(4)]
    assert is_classifier(fitted)
    assert fitted.n_features_in_ == 3


@pytest.mark.parametrize(
    "wrap",
    [
        tuple,
        lambda nets: FrozenEstimator(list(nets)),
        lambda nets: [FrozenEstimator(one) for one in nets],
        lambda nets: [(f"net {k}", one) for k, one in enumerate(nets)],
        lambda nets: (nets[0], [one.module_.state_dict() for one in nets]),
    ],
    ids=["tuple", "frozen list", "list of frozen", "pairs", "states"],
)
def test_whatever_stands_for_nets_gives_the_same_soup(nets, wrap):
    scoring = prefers(nets[2], nets[1])
    wanted = soup(nets, scoring=scoring)
    fitted = soup(wrap(nets), scoring=scoring)
    assert wanted.kept_ == fitted.kept_ == [1, 2]
    np.testing.assert_array_equal(fitted.predict(X), wanted.predict(X))


def test_names_are_reported(nets):
    fitted = soup([(f"seed {k}", one) for k, one in enumerate(nets)])
    assert fitted.soup_report_["net"].tolist() == ["seed 0", "seed 1", "seed 2", "seed 3"]
    best = int(fitted.scores_.argmax())
    assert f"seed {best}" in fitted.verdict_
    with pytest.raises(ValueError, match="'estimator' has a name twice"):
        soup([("a", nets[0]), ("a", nets[1])])


@pytest.mark.parametrize("frozen", [False, True])
def test_ensembles_and_grids_give_their_members(frozen):
    ensemble = DeepEnsemble(net(), 3, random_state=0).fit(X[TRAIN], Y[TRAIN])
    grid = ModelGrid(net(), {"lr": [0.01, 0.02]}, n_estimators=1, random_state=0)
    grid.fit(X[TRAIN], Y[TRAIN])
    bag = BaggingClassifier(net(), 3, random_state=0).fit(X[TRAIN], Y[TRAIN])
    for given, count in ((ensemble, 3), (grid, 2), (bag, 3)):
        fitted = soup(FrozenEstimator(given) if frozen else given)
        assert len(fitted.scores_) == count
        assert bits(clone(fitted).fit(X[HELD], Y[HELD])) == bits(fitted)


def test_folds_of_pipelines_get_the_scaler_of_the_first():
    pipeline = make_pipeline(StandardScaler(), net())
    given = cross_validate(pipeline, X, Y, cv=3, return_estimator=True)
    folds = given["estimator"]
    fitted = soup(given, aligner="weight", scoring=lambda model, X, y: 0.5)
    assert fitted.kept_ == [0]
    moved = fitted.estimators_[2]
    np.testing.assert_array_equal(moved[0].mean_, folds[0][0].mean_)
    np.testing.assert_allclose(moved.predict_proba(X), folds[2].predict_proba(X), atol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_perceptrons_of_scikit_learn():
    given = [
        MLPClassifier((4,), max_iter=20, random_state=seed).fit(X[TRAIN], Y[TRAIN])
        for seed in (0, 1)
    ]
    fitted = soup(given, scoring=lambda model, X, y: float(np.sum(model.coefs_[0] ** 2) < 1e9))
    assert isinstance(fitted.estimator_, MLPClassifier)
    assert fitted.predict(X).shape == (60,)


def test_modules_are_scored_by_a_callable():
    torch.manual_seed(0)
    given = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(3)]

    def score(module, X, y):
        with torch.no_grad():
            return -nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))

    fitted = soup(given, scoring=score)  # a tensor is a number, too
    assert fitted.scores_.tolist() == [float(score(one, X[HELD], Y[HELD])) for one in given]
    assert isinstance(fitted.estimator_, nn.Sequential)
    assert not is_classifier(fitted)
    assert not hasattr(fitted, "predict_proba")
    with pytest.raises(TypeError, match=r"a module, which predicts no labels.*'estimator_'"):
        fitted.predict(X)
    for scoring in (None, "accuracy"):
        with pytest.raises(TypeError, match=r"'scoring' must be a callable .*\(Sequential\)"):
            soup(given, scoring=scoring)


# what they are scored by


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc", "balanced_accuracy"])
def test_any_scorer_decides(nets, scoring):
    fitted = soup(nets, scoring=scoring)
    assert fitted.soup_score_ >= fitted.scores_.max()
    if scoring == "neg_log_loss":
        losses = [-log_loss(Y[HELD], one.predict_proba(X[HELD])) for one in nets]
        np.testing.assert_allclose(fitted.scores_, losses)


def test_regressors_are_scored_by_r2():
    given = [
        NetRegressor(max_epochs=2, random_state=k).fit(X[TRAIN], X[TRAIN, 0]) for k in range(2)
    ]
    fitted = GreedySoup(given).fit(X[HELD], X[HELD, 0])
    assert fitted.scores_.tolist() == [one.score(X[HELD], X[HELD, 0]) for one in given]


@pytest.mark.parametrize("score", [{"a": 1.0}, np.ones(2), None, "high"])
def test_scorers_that_give_no_number_are_refused(nets, score):
    with pytest.raises(TypeError, match="'scoring' must return one number"):
        soup(nets, scoring=lambda model, X, y: score)


# what is said


def test_soup_of_one_net_says_so(nets):
    """Equal scores: a tie is not enough to keep a second one."""
    fitted = soup(nets, scoring=lambda model, X, y: 0.25)
    assert fitted.kept_ == [0]
    assert fitted.verdict_ == (
        "The soup is member_0 (score 0.25) alone, on 20 held-out samples: averaged with any other "
        "of the 4 nets it did no better (the mean of all: 0.25)."
    )
    assert bits(fitted) == bits(nets[0])


def test_soup_of_several_says_what_it_is_worth(nets):
    fitted = soup(nets, scoring=prefers(nets[2], nets[1]))
    assert fitted.verdict_ == (
        "The soup holds 2 of 4 nets and scores 9 on 20 held-out samples, by which they were "
        "chosen; the best net alone is member_1 (score 1.1), the mean of all scores 0."
    )


def test_a_single_net_is_its_own_soup(nets):
    fitted = soup(nets[:1])
    assert "there was no other net" in fitted.verdict_
    assert bits(fitted) == bits(nets[0])


def test_parameters_of_a_grid_are_named():
    fitted = GreedySoup(net(), {"lr": [0.01, 0.02]}, random_state=0, scoring=lambda *args: 0.5)
    assert "the net of lr=0.01 (score 0.5) alone, on 12 held" in fitted.fit(X, Y).verdict_


# staying fitted


def test_clones_keep_the_nets_and_parameters(nets):
    one = GreedySoup(nets, aligner="weight", random_state=3)
    fresh = clone(one)
    assert fresh.estimator is nets
    assert fresh.get_params() == one.get_params()
    assert one.estimator is nets
    trained = clone(GreedySoup(nets[0], {"lr": [0.1]}))
    assert not hasattr(trained.estimator, "module_")


def test_clones_keep_requests_for_weights(nets):
    with sklearn.config_context(enable_metadata_routing=True):
        one = GreedySoup(nets).set_fit_request(sample_weight=True)
        assert clone(one).get_metadata_routing().fit.requests == {"sample_weight": True}


def test_search_over_nets_in_hand(nets):
    search = GridSearchCV(
        GreedySoup(nets), {"aligner": [None, "weight"]}, cv=2, error_score="raise"
    ).fit(X, Y)
    assert bits(search.best_estimator_.estimator[0]) == bits(nets[0])
    pipeline = make_pipeline(StandardScaler(), GreedySoup(nets)).fit(X, Y)
    assert pipeline.predict(X).shape == (60,)


def test_aligned_soup_is_a_merge(nets):
    scoring = prefers(nets[1])  # the best of all, then none does better
    fitted = soup(nets[:2], aligner="weight", scoring=scoring)
    order = [nets[1], nets[0]]
    merged = merge_models(order, aligner="weight", repair=None)
    assert bits(average_models(fitted.estimators_[::-1])) == bits(merged)


# messages


def test_bad_nets_are_refused_by_name(nets):
    other = net(module__width=4).fit(X[TRAIN], Y[TRAIN])
    with pytest.raises(ArchitectureMismatchError, match="'member_0' and 'member_1' are of"):
        soup([nets[0], other])
    broken = net(1).fit(X[TRAIN], Y[TRAIN])
    with torch.no_grad():
        broken.module_.layers[0].weight.fill_(np.nan)
    with pytest.raises(NonFiniteError, match="member_1"):
        soup([nets[0], broken])


@pytest.mark.parametrize(
    "given, grid, error, said",
    [
        ([], None, ValueError, "must hold at least 1 model"),
        ([net()], None, ValueError, "not fitted; call fit first"),
        (StandardScaler(), None, TypeError, "'estimator' must hold fitted nets .*StandardScaler"),
        ({"fold": [net()]}, None, ValueError, "'estimator' is a dict without 'estimator'.*fold"),
        (FrozenEstimator(net()), None, TypeError, "'estimator' must hold fitted nets .*NetClass"),
        ([net()], {"lr": [0.1]}, ValueError, "must be None for .* nets in hand.*'estimator' list"),
    ],
)
def test_what_holds_no_nets_is_refused(given, grid, error, said):
    with pytest.raises(error, match=f"GreedySoup: .*{said}"):
        GreedySoup(given, grid).fit(X, Y)
