"""Greedy soups."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import check_param_validation

from sklmc import (
    GreedySoup,
    ModelGrid,
    NetClassifier,
    NetRegressor,
    PermutationAligner,
    average_models,
)
from sklmc.exceptions import ArchitectureMismatchError
from sklmc.merging._repairs._batch_norm import reestimate_statistics
from sklmc.merging._soup import greedy_selection
from sklmc.models import view
from sklmc.nets import MLP

X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
CODES = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
Y = np.array(["no", "yes"])[CODES]
GRID = {"lr": [0.001, 0.01, 0.03]}


def net(**parameters):
    return NetClassifier(**{"module__width": 6, "max_epochs": 3, **parameters})


def soup(estimator=None, param_grid=GRID, **parameters):
    return GreedySoup(estimator or net(), param_grid, **{"random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return soup(n_estimators=2, aligner="weight").fit(X, Y)


def bits(model):
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]


# the rule


def test_rule_replays_on_a_table_of_scores():
    """Tried in the order 2, 0, 3, 1; a tie is not enough."""
    table = {(2, 0): 0.81, (2, 0, 3): 0.81, (2, 0, 1): 0.85}
    tried = []

    def score_of(members):
        tried.append(tuple(members))
        return table[tuple(members)]

    kept, score = greedy_selection([0.7, 0.5, 0.8, 0.6], score_of)
    assert tried == [(2, 0), (2, 0, 3), (2, 0, 1)]
    assert kept == [2, 0, 1]
    assert score == 0.85


def test_equal_scores_keep_the_order_of_the_grid():
    tried = []
    greedy_selection([1.0, 1.0, 1.0], lambda members: tried.append(members) or 0.0)
    assert tried == [[0, 1], [0, 2]]


def test_nan_scores_come_last_and_are_never_kept():
    kept, score = greedy_selection([np.nan, 0.3, 0.2], lambda members: np.nan)
    assert kept == [1]
    assert score == 0.3


@pytest.mark.parametrize("seed", range(10))
def test_soup_is_never_worse_than_the_best_member(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=6)
    table = {}

    def score_of(members):
        return table.setdefault(tuple(members), float(rng.normal()))

    kept, score = greedy_selection(scores, score_of)
    assert score >= scores.max()
    assert score == (table[tuple(kept)] if len(kept) > 1 else scores.max())
    assert kept[0] == scores.argmax()


# the estimator


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("aligner", [None, "weight"])
def test_held_out_score_is_at_least_the_best_single_one(seed, aligner):
    for inner, target in ((net(), Y), (NetRegressor(max_epochs=2), X[:, 0])):
        one = soup(inner, random_state=seed, aligner=aligner, n_estimators=2).fit(X, target)
        assert one.soup_score_ >= one.scores_.max()
        assert one.scores_[one.kept_[0]] == one.scores_.max()


def test_soup_is_the_mean_of_those_kept(fitted):
    kept = [fitted.estimators_[index] for index in fitted.kept_]
    assert bits(average_models(kept)) == bits(fitted.estimator_)
    assert len(fitted.estimators_) == 6
    np.testing.assert_array_equal(fitted.predict(X), fitted.estimator_.predict(X))
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.n_features_in_ == 3


def test_report_tells_what_was_kept(fitted):
    report = fitted.soup_report_
    assert report["lr"].tolist() == [0.001, 0.001, 0.01, 0.01, 0.03, 0.03]
    assert report["score"].tolist() == fitted.scores_.tolist()
    assert np.flatnonzero(report["kept"]).tolist() == sorted(fitted.kept_)


def test_fitted_grid_serves_as_it_is():
    grid = ModelGrid(net(), GRID, n_estimators=2, random_state=3).fit(X[:60], Y[:60])
    before = [bits(one) for cell in grid.cells_ for one in cell.estimators]
    one = GreedySoup(FrozenEstimator(grid)).fit(X[60:], Y[60:])
    assert [bits(net) for net in one.estimators_] == before
    members = [net for cell in grid.cells_ for net in cell.estimators]
    assert one.scores_.tolist() == [net.score(X[60:], Y[60:]) for net in members]
    assert one.soup_score_ == one.score(X[60:], Y[60:])
    assert one.uniform_score_ == average_models(members).score(X[60:], Y[60:])
    assert [bits(net) for cell in grid.cells_ for net in cell.estimators] == before


def test_aligned_nets_stay_in_the_order_of_the_grid(fitted):
    plain = soup(n_estimators=2).fit(X, Y)
    assert plain.scores_.tolist() == fitted.scores_.tolist()
    for moved, original in zip(fitted.estimators_, plain.estimators_, strict=True):
        np.testing.assert_allclose(
            moved.predict_proba(X), original.predict_proba(X), rtol=1e-4, atol=1e-6
        )
    best = int(plain.scores_.argmax())
    assert bits(fitted.estimators_[best]) == bits(plain.estimators_[best])


def test_aligners_that_learn_get_the_labels_of_the_training_rows():
    learner = PermutationAligner("straight_through", max_iter=2, random_state=0)
    one = soup(param_grid={"lr": [0.01, 0.02]}, aligner=learner).fit(X, Y)
    assert one.soup_score_ >= one.scores_.max()


def test_batch_norm_of_a_soup_is_estimated_again():
    grid = ModelGrid(
        net(module__norm="batch"), {"lr": [0.01, 0.02]}, n_estimators=1, random_state=0
    )
    grid.fit(X, Y)

    def smallness(estimator, X, y):
        return -float(torch.linalg.vector_norm(estimator.module_.layers[0].weight))

    fitted = GreedySoup(FrozenEstimator(grid), scoring=smallness).fit(X, Y)
    assert len(fitted.kept_) == 2  # averaging shrinks
    look = view(fitted.estimator_, caller="test")
    again = reestimate_statistics(look, look.state, look.to_input(X))
    assert bits(fitted) == [tensor.numpy().tobytes() for tensor in again.values()]


def test_scoring_decides():
    def smallest(estimator, X, y):
        return -float(torch.linalg.vector_norm(estimator.module_.layers[0].weight))

    one = soup(scoring=smallest, n_estimators=2).fit(X, Y)
    assert len(one.kept_) > 1  # averaging shrinks
    assert soup(scoring="neg_log_loss").fit(X, Y).scores_.max() < 0


@pytest.mark.parametrize("n_jobs", [2])
def test_result_does_not_depend_on_jobs(fitted, n_jobs):
    import joblib

    with joblib.parallel_backend("threading"):
        again = soup(n_estimators=2, aligner="weight", n_jobs=n_jobs).fit(X, Y)
    assert bits(again) == bits(fitted)
    pd.testing.assert_frame_equal(again.soup_report_, fitted.soup_report_)


def test_composition_and_round_trip(fitted):
    pipeline = make_pipeline(StandardScaler(), soup())
    assert cross_val_score(pipeline, X, Y, cv=2).min() > 0.3
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    fresh = clone(fitted)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert not hasattr(fresh, "soup_report_")


def test_bar(capsys):
    soup().fit(X, Y)
    assert capsys.readouterr().err == ""
    soup(verbose=1).fit(X, Y)
    assert "GreedySoup: 100%" in capsys.readouterr().err


def test_nets_of_different_architecture_are_refused_by_name():
    with pytest.raises(
        ArchitectureMismatchError,
        match=r"(?s)'layers.0.weight'.*single value for 'module__width' in 'param_grid'",
    ):
        soup(param_grid={"module__width": [4, 8]}).fit(X, Y)


@pytest.mark.parametrize(
    "arguments, error, said",
    [
        ((net(), None), ValueError, "'param_grid' must be given for a net to train"),
        ((3, GRID), InvalidParameterError, "'estimator' parameter of GreedySoup"),
        ((net(), 3), InvalidParameterError, "'param_grid' parameter of GreedySoup"),
        ((StandardScaler(), GRID), TypeError, "must be a skorch net, got StandardScaler"),
        ((NetClassifier(MLP(3, 2)), GRID), TypeError, "GreedySoup got a net whose 'module'"),
        ((ModelGrid(net(), GRID), None), TypeError, "that is not fitted; pass a fitted one"),
        ((FrozenEstimator(ModelGrid(net(), GRID)), None), TypeError, "pass a fitted one"),
        ((net(), {"nonsense": [1]}), ValueError, "nonsense"),
        ((net(), []), ValueError, "has no point"),
    ],
)
def test_bad_arguments(arguments, error, said):
    with pytest.raises(error, match=said):
        GreedySoup(*arguments).fit(X, Y)


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"n_estimators": 0}, "'n_estimators' parameter of GreedySoup"),
        ({"validation_fraction": 0.0}, "'validation_fraction' parameter of GreedySoup"),
        ({"aligner": "nearest"}, "'aligner' parameter of GreedySoup"),
    ],
)
def test_bad_parameters(parameters, said):
    with pytest.raises(InvalidParameterError, match=said):
        soup(**parameters).fit(X, Y)


def test_parameter_grid_of_a_frozen_grid_is_refused():
    grid = ModelGrid(net(max_epochs=1), {"lr": [0.01]}, n_estimators=1, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="must be None for a fitted ModelGrid"):
        GreedySoup(FrozenEstimator(grid), GRID).fit(X, Y)


def test_parameters_are_validated():
    check_param_validation("GreedySoup", soup())
