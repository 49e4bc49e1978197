"""Weights of samples in WeightAverager, SWAEnsembler and GreedySoup."""

import numpy as np
import pytest
import sklearn
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import cross_validate
from skorch import NeuralNetClassifier

from sklmc import (
    GreedySoup,
    ModelGrid,
    NetClassifier,
    NetRegressor,
    SWAEnsembler,
    WeightAverager,
)
from sklmc._sklearn import FrozenEstimator
from sklmc.nets import MLP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = (X[:, 0] + RNG.normal(size=120) > 0).astype(int)
VALUES = X[:, 0] - X[:, 1]
WEIGHTS = RNG.integers(0, 3, 120).astype(float)
TIMES = WEIGHTS.astype(int)
FULL = {"module__width": 8, "batch_size": -1, "dtype": "float64", "max_epochs": 8}
SUMS = 1e-9  # what another order of summing may change in float64 after eight steps


def net(**options):
    return NetClassifier(**{**FULL, **options})


def averager(**options):
    return WeightAverager(options.pop("estimator", net()), 2, random_state=0, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        averager(validation_fraction=None, repair=None),
        SWAEnsembler(net(), n_snapshots=3, random_state=0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_weights_are_repeats_in_full_batches(estimator):
    weighted = sklearn.clone(estimator).fit(X, Y, sample_weight=WEIGHTS)
    repeated = sklearn.clone(estimator).fit(X.repeat(TIMES, 0), Y.repeat(TIMES))
    found, wanted = (one.predict_proba(X) for one in (weighted, repeated))
    np.testing.assert_allclose(found, wanted, atol=SUMS)


@pytest.mark.parametrize(
    "estimator",
    [
        averager(estimator=net(module__norm="batch"), validation_fraction=None),
        averager(aligner="activation", validation_fraction=None),
        averager(aligner="merge_many", weights="validation", validation_fraction=None),
        averager(calibrate=True, validation_fraction=None),
        SWAEnsembler(net(module__norm="batch"), n_snapshots=3, random_state=0),
        SWAEnsembler(FrozenEstimator(net(random_state=0).fit(X, Y)), n_snapshots=3, random_state=0),
    ],
    ids=str,
)
def test_a_weight_of_zero_leaves_a_sample_out_of_everything(estimator):
    kept = WEIGHTS > 0
    whole = sklearn.clone(estimator).fit(X, Y, sample_weight=WEIGHTS)
    part = sklearn.clone(estimator).fit(X[kept], Y[kept], sample_weight=WEIGHTS[kept])
    np.testing.assert_array_equal(whole.predict_proba(X), part.predict_proba(X))


def test_held_out_rows_count_by_their_weight():
    fitted = averager(validation_fraction=0.4, scoring=["roc_auc"]).fit(X, Y, WEIGHTS)
    held = fitted.validation_indices_
    assert len(held) == round(0.4 * (WEIGHTS > 0).sum())
    assert (WEIGHTS[held] > 0).all()
    report = fitted.merge_report_
    for name, model in {"member_1": fitted.estimators_[1], "last": fitted.estimator_}.items():
        row = report.iloc[-1] if name == "last" else report.set_index("model").loc[name]
        probabilities = model.predict_proba(X[held])
        given = {"sample_weight": WEIGHTS[held]}
        assert row["accuracy"] == pytest.approx(model.score(X[held], Y[held], **given))
        assert row["roc_auc"] == pytest.approx(roc_auc_score(Y[held], probabilities[:, 1], **given))
        assert row["loss"] == pytest.approx(log_loss(Y[held], probabilities, **given))
        assert row["low"] <= row["roc_auc"] <= row["high"]


def test_intervals_are_weighted():
    scored = [
        averager(validation_fraction=0.4, scoring=scoring).fit(X, Y, WEIGHTS).merge_report_
        for scoring in (None, "accuracy")
    ]
    regressor = averager(validation_fraction=0.4, estimator=NetRegressor(**FULL))
    scored += [
        sklearn.clone(regressor).set_params(scoring=scoring).fit(X, VALUES, WEIGHTS).merge_report_
        for scoring in (None, "r2")
    ]
    for plain, by_scorer in (scored[:2], scored[2:]):
        for name in (*plain.columns[1:7], "loss"):
            np.testing.assert_allclose(plain[name], by_scorer[name], rtol=1e-6, atol=1e-9)


def test_labels_without_weight_are_known():
    rare = np.where(WEIGHTS == 0, 2, Y)
    fitted = averager().fit(X, rare, sample_weight=WEIGHTS)
    assert fitted.classes_.tolist() == [0, 1, 2]


def test_soup_trains_and_chooses_by_weights():
    soup = GreedySoup(net(), {"lr": [0.01, 0.03]}, aligner="weight", random_state=0)
    soup.fit(X, Y, sample_weight=WEIGHTS)
    assert soup.soup_score_ >= soup.scores_.max()
    grid = ModelGrid(net(), {"lr": [0.01, 0.03]}, n_estimators=1, random_state=0).fit(X, Y)
    options = {"aligner": "weight", "scoring": "balanced_accuracy"}
    frozen = GreedySoup(FrozenEstimator(grid), **options).fit(X, Y, sample_weight=WEIGHTS)
    for cell, score in zip(grid.cells_, frozen.scores_, strict=True):
        labels = cell.estimators[0].predict(X)
        assert score == balanced_accuracy_score(Y, labels, sample_weight=WEIGHTS)


ESTIMATORS = [
    averager(),
    SWAEnsembler(net(), n_snapshots=1, random_state=0),
    GreedySoup(net(), {"lr": [0.01, 0.03]}, random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_bad_weights_are_refused_by_name(estimator):
    for weights, said in {
        "few": (WEIGHTS[:-1], r"must have shape \(120,\)"),
        "negative": (-WEIGHTS, "must be finite and not negative"),
        "zero": (0 * WEIGHTS, "is zero throughout"),
        "text": (["1"] * 120, "must be a sequence of numbers"),
    }.values():
        caller = type(estimator).__name__
        with pytest.raises((TypeError, ValueError), match=f"{caller}: 'sample_weight' {said}"):
            sklearn.clone(estimator).fit(X, Y, sample_weight=weights)


def test_scorers_and_nets_that_take_no_weights_are_refused():
    def scorer(model, X, y):
        return model.score(X, y)

    for estimator in (averager(scoring=scorer), sklearn.clone(ESTIMATORS[2])):
        estimator.set_params(scoring=scorer)
        with pytest.raises(TypeError, match=r"weight' was given, but 'scoring' .* takes none"):
            estimator.fit(X, Y, sample_weight=WEIGHTS)
    plain = NeuralNetClassifier(MLP, module__n_features=3, module__n_outputs=2)
    for estimator in (averager(estimator=plain), SWAEnsembler(plain, n_snapshots=1)):
        with pytest.raises(ValueError, match="the fit of NeuralNetClassifier takes none"):
            estimator.fit(X.astype(np.float32), Y, sample_weight=WEIGHTS)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_weights_are_routed(estimator):
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = sklearn.clone(estimator).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        options = {"params": {"sample_weight": WEIGHTS}, "return_indices": True}
        found = cross_validate(estimator, X, Y, cv=2, **options)
        train, test = (found["indices"][part][0] for part in ("train", "test"))
        alone = sklearn.clone(estimator).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
    wanted = alone.score(X[test], Y[test], sample_weight=WEIGHTS[test])
    assert found["test_score"][0] == wanted
