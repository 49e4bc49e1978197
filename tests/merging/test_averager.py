"""WeightAverager: train, align, average, compare."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import check_param_validation
from skorch import NeuralNetClassifier
from torch import nn

from sklmc import (
    DeepEnsemble,
    NetClassifier,
    NetRegressor,
    PermutationAligner,
    merge_models,
)
from sklmc.exceptions import DivergedMemberWarning
from sklmc.nets import MLP
from tests.merging.averagers import CODES, VALUES, X, Y, averager, bits, net

# contract


def test_predictions_are_those_of_the_merged_net(fitted):
    np.testing.assert_array_equal(fitted.predict(X), fitted.estimator_.predict(X))
    np.testing.assert_array_equal(fitted.predict_proba(X), fitted.estimator_.predict_proba(X))
    assert fitted.score(X, Y) == (fitted.predict(X) == Y).mean()
    assert fitted.classes_.tolist() == ["no", "yes"]
    assert fitted.n_features_in_ == 3
    assert isinstance(fitted.estimator_, NetClassifier)


def test_regression_has_no_probabilities():
    inner = NetRegressor(module__width=8, max_epochs=10)
    fitted = averager(estimator=inner).fit(X, VALUES)
    assert not hasattr(fitted, "predict_proba")
    assert not hasattr(averager(estimator=inner), "predict_proba")
    assert fitted.predict(X).shape == (120,)
    assert "r2" in fitted.merge_report_
    assert fitted.score(X, VALUES) > 0


def test_several_targets():
    inner = NetRegressor(module__width=8, max_epochs=3)
    fitted = averager(estimator=inner).fit(X, np.stack([VALUES, X[:, 2]], axis=1))
    assert fitted.predict(X).shape == (120, 2)
    assert np.isfinite(fitted.merge_report_["r2"]).all()


def test_merge_is_that_of_merge_models(fitted):
    train = np.setdiff1d(np.arange(120), fitted.validation_indices_)
    members = DeepEnsemble(net(), 3, random_state=0).fit(X[train], Y[train]).estimators_
    assert bits(merge_models(members, X[train], Y[train])) == bits(fitted.estimator_)
    again = merge_models(fitted.estimators_, X[train], Y[train], aligner=None)
    assert bits(again) == bits(fitted.estimator_)


def test_batch_norm_is_repaired_on_the_training_rows():
    fitted = averager(estimator=net(module__norm="batch")).fit(X, Y)
    train = np.setdiff1d(np.arange(120), fitted.validation_indices_)
    merged = merge_models(fitted.estimators_, X[train], Y[train], aligner=None)
    assert bits(merged) == bits(fitted.estimator_)
    assert fitted.merge_report_["model"].iloc[-1] == "repaired"


def test_members_are_aligned_and_compute_the_same_function(fitted):
    train = np.setdiff1d(np.arange(120), fitted.validation_indices_)
    members = DeepEnsemble(net(), 3, random_state=0).fit(X[train], Y[train]).estimators_
    assert bits(fitted.estimators_[0]) == bits(members[0])
    for moved, original in zip(fitted.estimators_[1:], members[1:], strict=True):
        assert bits(moved) != bits(original)
        np.testing.assert_allclose(
            moved.predict_proba(X), original.predict_proba(X), rtol=1e-4, atol=1e-6
        )


def test_options_of_aligner_and_weights():
    plain = averager(aligner=None).fit(X, Y)
    assert "aligned" not in plain.merge_report_["model"].tolist()
    given = averager(aligner=PermutationAligner(random_state=0)).fit(X, Y)
    assert bits(given.estimator_) == bits(averager().fit(X, Y).estimator_)
    first = averager(weights=[1, 0]).fit(X, Y)
    assert bits(first.estimator_) == bits(first.estimators_[0])


def test_estimator_handed_in_is_not_touched():
    inner = net()
    before = dict(inner.get_params(), keys=sorted(vars(inner)))
    averager(estimator=inner).fit(X, Y)
    assert dict(inner.get_params(), keys=sorted(vars(inner))) == before


def test_generators_stay_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    averager(random_state=None).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    "backend", [pytest.param("loky", marks=pytest.mark.slow), "threading", "multiprocessing"]
)
def test_result_does_not_depend_on_jobs_or_backend(fitted, backend):
    with joblib.parallel_backend(backend):
        again = averager(3, n_jobs=2).fit(X, Y)
    assert bits(again.estimator_) == bits(fitted.estimator_)
    pd.testing.assert_frame_equal(again.merge_report_, fitted.merge_report_)


def test_seed_decides():
    assert bits(averager().fit(X, Y)) == bits(averager().fit(X, Y))
    assert bits(averager().fit(X, Y)) != bits(averager(random_state=1).fit(X, Y))
    draws = np.random.RandomState(0)
    assert bits(averager(random_state=draws).fit(X, Y)) != bits(
        averager(random_state=draws).fit(X, Y)
    )


@pytest.mark.parametrize("kind", ["list", "frame", "tensor", "float32", "integers"])
def test_kinds_of_input(kind):
    data = {
        "list": (X.tolist(), Y.tolist()),
        "frame": (pd.DataFrame(X, columns=list("abc")), pd.Series(Y)),
        "tensor": (torch.from_numpy(X), torch.from_numpy(CODES)),
        "float32": (X.astype(np.float32), CODES.astype(bool)),
        "integers": ((10 * X).astype(int), CODES),
    }[kind]
    fitted = averager().fit(*data)
    assert fitted.score(data[0], np.asarray(data[1])) > 0.5
    assert fitted.predict(data[0]).dtype == np.asarray(data[1]).dtype
    assert hasattr(fitted, "feature_names_in_") == (kind == "frame")


def test_images_go_in_as_they_are():
    class Conv(nn.Module):
        def __init__(self, n_channels, n_outputs):
            super().__init__()
            self.conv = nn.Conv2d(n_channels, 4, 3)
            self.head = nn.Linear(4, n_outputs)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))

    images = np.random.default_rng(0).normal(size=(40, 2, 4, 4))
    fitted = averager(estimator=NetClassifier(Conv, max_epochs=1)).fit(images, Y[:40])
    assert fitted.predict(images).shape == (40,)


def test_plain_skorch_net_is_averaged():
    class Module(MLP):
        def __init__(self):
            super().__init__(3, 2, width=4)

    inner = NeuralNetClassifier(
        Module, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )
    fitted = averager(estimator=inner).fit(X.astype(np.float32), CODES)
    assert set(fitted.predict(X.astype(np.float32))) <= {0, 1}
    assert fitted.merge_report_["model"].tolist()[:3] == ["member_0", "member_1", "ensemble"]


# round trips and composition


@pytest.mark.parametrize("way", ["pickle", "joblib", "skops"])
def test_round_trips_keep_predictions(fitted, way, tmp_path):
    if way == "pickle":
        again = pickle.loads(pickle.dumps(fitted))
    elif way == "joblib":
        joblib.dump(fitted, tmp_path / "model")
        again = joblib.load(tmp_path / "model")
    else:
        data = skops.io.dumps(fitted)
        again = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    pd.testing.assert_frame_equal(again.merge_report_, fitted.merge_report_)


def test_clone_is_not_fitted(fitted):
    fresh = clone(fitted)
    for use in (fresh.predict, fresh.predict_proba):
        with pytest.raises(NotFittedError, match="WeightAverager"):
            use(X)
    assert not hasattr(fresh, "classes_")


def test_inside_a_pipeline_and_a_search():
    pipeline = make_pipeline(StandardScaler(), averager())
    assert cross_val_score(pipeline, X, Y, cv=2).min() > 0.4
    search = GridSearchCV(pipeline, {"weightaverager__estimator__module__width": [4, 8]}, cv=2).fit(
        X, Y
    )
    assert search.best_estimator_[-1].estimator_.module_.width in (4, 8)


def test_bar_and_lines(capsys):
    averager(verbose=0).fit(X, Y)
    silent = capsys.readouterr()
    assert silent.out + silent.err == ""
    averager(verbose=1).fit(X, Y)
    assert "2/2" in capsys.readouterr().err


# errors


def test_diverged_member_is_left_out():
    class Fragile(MLP):
        def __init__(self, n_features, n_outputs):
            super().__init__(n_features, n_outputs, width=4)
            if torch.rand(1) < 0.5:
                nn.init.constant_(self.layers[0].bias, torch.nan)

    inner = NetClassifier(Fragile, max_epochs=1)
    for seed in range(20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = averager(3, estimator=inner, random_state=seed)
            try:
                fitted.fit(X, Y)
            except ValueError:
                continue
        if any(issubclass(w.category, DivergedMemberWarning) for w in caught):
            break
    assert len(fitted.estimators_) in (1, 2)
    assert np.isfinite(fitted.predict_proba(X)).all()


def test_weight_on_diverged_members_only_is_refused():
    from sklmc.merging._averager import _finite_weights

    with pytest.raises(ValueError, match=r"all weight lies on members that diverged.*\[0\]"):
        _finite_weights(np.array([0.0, 1.0]), np.array([0]))
    left = np.array([0, 2])
    assert _finite_weights(np.array([0.25, 0.5, 0.25]), left).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "parameters, error, said",
    [
        ({"n_estimators": 0}, InvalidParameterError, "'n_estimators' parameter of WeightAverager"),
        ({"aligner": "wieght"}, InvalidParameterError, "'aligner' parameter of WeightAverager"),
        ({"repair": "nothing"}, InvalidParameterError, "'repair' parameter of WeightAverager"),
        ({"validation_fraction": 1.0}, InvalidParameterError, "'validation_fraction' parameter"),
        ({"validation_fraction": 0.0}, InvalidParameterError, "'validation_fraction' parameter"),
        ({"weights": "test"}, InvalidParameterError, "'weights' parameter of WeightAverager"),
        ({"calibrate": "yes"}, InvalidParameterError, "'calibrate' parameter of WeightAverager"),
        ({"weights": [1.0]}, ValueError, "WeightAverager: 'weights' must hold one number per"),
        ({"weights": [1.0, -1.0]}, ValueError, "WeightAverager: 'weights' must be finite"),
        ({"weights": [0.0, 0.0]}, ValueError, "WeightAverager: 'weights' sum to"),
        ({"estimator": 3}, InvalidParameterError, "'estimator' parameter of WeightAverager"),
        ({"estimator": StandardScaler()}, InvalidParameterError, "'estimator' parameter"),
        (
            {"estimator": make_pipeline(StandardScaler(), net())},
            TypeError,
            "must be a skorch net, got Pipeline.*put the WeightAverager into the Pipeline",
        ),
        (
            {"estimator": DeepEnsemble(net())},
            TypeError,
            "must be a skorch net, got DeepEnsemble.*use a NetClassifier or a NetRegressor",
        ),
        (
            {"estimator": NetClassifier(MLP(3, 2))},
            TypeError,
            r"WeightAverager got a net whose 'module' is an instance \(MLP\)",
        ),
    ],
)
def test_bad_parameters(parameters, error, said):
    rows = X.astype(np.float32)
    with pytest.raises(error, match=f"(?s){said}"):
        averager(**parameters).fit(rows, CODES)


@pytest.mark.parametrize(
    "data, error, said",
    [
        ((X, None), ValueError, "WeightAverager requires y"),
        ((X, Y[:5]), ValueError, "WeightAverager: 'X' and 'y' must have the same length"),
        ((X[:0], Y[:0]), ValueError, "WeightAverager: 'X' holds no sample"),
        ((X * np.nan, Y), ValueError, "contains NaN"),
        ((X, np.zeros(120)), ValueError, "one class only"),
        (({"x": X}, Y[:5]), ValueError, "WeightAverager: 'X' and 'y' must have the same length"),
    ],
)
def test_bad_data(data, error, said):
    with pytest.raises(error, match=said):
        averager().fit(*data)


def test_wrong_columns_are_refused_at_predict(fitted):
    with pytest.raises(ValueError, match="3 features"):
        fitted.predict(X[:, :2])


def test_parameters_are_validated():
    check_param_validation("WeightAverager", averager())
