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
    WeightAverager,
    merge_models,
)
from sklmc.exceptions import DivergedMemberWarning, MergeWarning
from sklmc.merging._report import MergeReport
from sklmc.models import fit_inverse_temperature, per_sample_loss, predict_outputs, view
from sklmc.nets import MLP

X = np.random.default_rng(0).normal(size=(120, 3))
CODES = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
Y = np.array(["no", "yes"])[CODES]
VALUES = X[:, 0] - 2 * X[:, 1]


def net(**parameters):
    return NetClassifier(**{"module__width": 8, "max_epochs": 4, **parameters})


def averager(n_estimators=2, **parameters):
    inner = parameters.pop("estimator", None) or net()
    return WeightAverager(inner, n_estimators, **{"random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return averager(3).fit(X, Y)


def bits(model):
    return [tensor.numpy().tobytes() for tensor in view(model, caller="test").state.values()]


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
    assert bits(merge_models(fitted.estimators_, X[train], aligner=None)) == bits(fitted.estimator_)
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


# the report


def test_report_has_a_row_for_everything(fitted):
    report = fitted.merge_report_
    assert report["model"].tolist() == [
        *("member_0", "member_1", "member_2"),
        *("ensemble", "naive", "aligned", "repaired"),
    ]
    assert fitted.repair_ == "refit"
    assert report.columns.tolist() == [
        *("model", "accuracy", "loss", "calibration_error"),
        *("n_parameters", "n_multiply_adds"),
    ]
    assert report["n_multiply_adds"].tolist() == [40] * 3 + [120] + [40] * 3  # 3-8-2
    size = sum(p.numel() for p in fitted.estimator_.module_.parameters())
    assert report["n_parameters"].tolist() == [size] * 3 + [3 * size] + [size] * 3


def test_report_is_measured_on_the_validation_rows(fitted):
    held = fitted.validation_indices_
    assert len(held) == 12
    report = fitted.merge_report_.set_index("model")
    for index, member in enumerate(fitted.estimators_):
        accuracy = (member.predict(X[held]) == Y[held]).mean()
        assert report.loc[f"member_{index}", "accuracy"] == pytest.approx(accuracy)
    mean = np.mean([member.predict_proba(X[held]) for member in fitted.estimators_], axis=0)
    codes = CODES[held]
    loss = -np.log(mean[np.arange(12), codes]).mean()
    assert report.loc["ensemble", "loss"] == pytest.approx(loss, rel=1e-5)
    merged = fitted.predict_proba(X[held])
    loss = -np.log(merged[np.arange(12), codes]).mean()
    assert report["loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    target = torch.tensor([1, 1, 1, 0])
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, -0.1]])
    report = MergeReport(view(nn.Linear(1, 2), caller="f"), torch.ones(4, 1), target)
    report._add("member_0", logits, 1)
    sure, unsure = torch.softmax(torch.tensor([[2.0, 0.0], [0.1, 0.0]]).double(), dim=1)[:, 0]
    expected = (3 * (1 - sure) + (1 - unsure)) / 4
    assert report.rows[0]["calibration_error"] == pytest.approx(float(expected))
    wrong = MergeReport(view(nn.Linear(1, 2), caller="f"), torch.ones(4, 1), 1 - target)
    wrong._add("member_0", logits, 1)
    expected = (3 * sure + unsure) / 4
    assert wrong.rows[0]["calibration_error"] == pytest.approx(float(expected))


def test_calibration_is_folded_into_the_last_layer():
    plain = averager(validation_fraction=0.5).fit(X, Y)
    scaled = averager(validation_fraction=0.5, calibrate=True).fit(X, Y)
    beta = scaled.inverse_temperature_
    assert plain.inverse_temperature_ is None
    assert beta != 1.0
    assert (scaled.predict(X) == plain.predict(X)).all()
    logits = [one.estimator_.forward(X) for one in (plain, scaled)]
    torch.testing.assert_close(logits[1], beta * logits[0])
    report = scaled.merge_report_.set_index("model")
    assert report.index[-1] == "calibrated"
    assert report.loc["calibrated", "loss"] <= report.loc["repaired", "loss"]
    held = scaled.validation_indices_
    loss = -np.log(scaled.predict_proba(X[held])[np.arange(60), CODES[held]]).mean()
    assert report.loc["calibrated", "loss"] == pytest.approx(loss, rel=1e-5)


def test_regressors_are_not_calibrated():
    inner = NetRegressor(module__width=8, max_epochs=2)
    fitted = averager(estimator=inner, calibrate=True).fit(X, VALUES)
    assert fitted.inverse_temperature_ is None


def test_output_that_is_no_layer_cannot_be_calibrated():
    class Odd(MLP):
        def forward(self, x):
            return super().forward(x) * 2.0

    with pytest.raises(ValueError, match="the output of Odd is not that of a linear or conv"):
        averager(estimator=NetClassifier(Odd, max_epochs=1), calibrate=True).fit(X, Y)


def test_weights_fitted_on_the_validation_part_beat_every_member():
    options = {"aligner": None, "repair": None, "validation_fraction": 0.5}
    uniform = averager(3, **options).fit(X, Y)
    fitted = averager(3, weights="validation", **options).fit(X, Y)
    assert uniform.weights_.tolist() == [1 / 3] * 3
    assert fitted.weights_.sum() == pytest.approx(1.0)
    assert fitted.weights_.min() >= 0
    train = np.setdiff1d(np.arange(120), fitted.validation_indices_)
    merged = merge_models(
        fitted.estimators_, X[train], weights=fitted.weights_, aligner=None, repair=None
    )
    assert bits(merged) == bits(fitted.estimator_)

    def calibrated_loss(net):
        held = fitted.validation_indices_
        look = view(net, caller="test")
        logits, codes = predict_outputs(look, look.to_input(X[held])), torch.tensor(CODES[held])
        beta = fit_inverse_temperature(logits, codes, held_out=True)
        return float(per_sample_loss(beta * logits.double(), codes, "test").mean())

    least = calibrated_loss(fitted.estimator_)
    for net in (*fitted.estimators_, uniform.estimator_):
        assert least <= calibrated_loss(net) + 1e-6  # sums in another order


def test_weights_are_fitted_with_batch_norm_estimated_again():
    fitted = averager(estimator=net(module__norm="batch"), weights="validation").fit(X, Y)
    assert fitted.weights_.sum() == pytest.approx(1.0)


def test_without_validation_part_everything_trains():
    fitted = averager(validation_fraction=None).fit(X, Y)
    assert len(fitted.validation_indices_) == 0
    members = DeepEnsemble(net(), 2, random_state=0).fit(X, Y).estimators_
    assert bits(merge_models(members, X, Y)) == bits(fitted.estimator_)
    assert fitted.merge_report_["accuracy"].iloc[0] == pytest.approx(members[0].score(X, Y))


def test_rare_classes_stay_in_training():
    labels = Y.astype(object)
    labels[:3] = ["a", "b", "b"]
    fitted = averager(validation_fraction=0.5).fit(X, labels)
    assert fitted.classes_.tolist() == ["a", "b", "no", "yes"]
    assert 0 not in fitted.validation_indices_


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_few_samples(n_samples):
    few = np.array([0, 1] * 3)[:n_samples]
    fitted = averager().fit(X[:n_samples], few)
    assert fitted.predict(X[:2]).shape == (2,)
    assert np.isfinite(fitted.merge_report_["loss"]).all()


class Signs(nn.Module):
    """One hidden layer whose sign is random: the mean of two such nets is no net."""

    calls = 0

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.hidden = nn.Linear(n_features, 2, bias=False)
        self.out = nn.Linear(2, n_outputs, bias=False)
        sign = 1.0 if torch.rand(1) < 0.5 else -1.0
        with torch.no_grad():
            self.hidden.weight.copy_(sign * torch.tensor([[9.0, 0, 0], [9.0, 0, 0]]))
            self.out.weight.copy_(sign * torch.tensor([[-5.0, -4.0], [5.0, 4.0]]))

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


def broken(n_samples, **parameters):
    """Members that are right, and whose mean is zero or better nothing."""
    inner = NetClassifier(Signs, max_epochs=0)
    labels = (X[:n_samples, 0] > 0).astype(int)
    for seed in range(50):
        fitted = averager(estimator=inner, aligner=None, random_state=seed, **parameters)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted.fit(X[:n_samples], labels)
        if abs(fitted.estimator_.module_.hidden.weight).max() == 0:
            return [w for w in caught if issubclass(w.category, MergeWarning)], fitted
    raise AssertionError("no seed gave opposite signs")


def test_clear_loss_is_announced():
    caught, fitted = broken(120, validation_fraction=0.5)
    (warning,) = caught
    best = fitted.merge_report_["accuracy"].max()
    assert best == 1.0
    said = str(warning.message)
    assert "worse than its best part (accuracy 0." in said
    assert "against 1 of member_0, on 60 samples" in said
    assert warning.filename == __file__


def test_tiny_validation_part_raises_no_alarm():
    caught, fitted = broken(12, validation_fraction=0.5)
    assert not caught
    assert fitted.merge_report_["accuracy"].iloc[-1] < 1.0


@pytest.mark.parametrize(
    "lost, won, alarm",
    [(6, 0, False), (7, 0, True), (8, 1, False), (10, 1, True), (0, 30, False), (40, 30, False)],
)
def test_rule_of_the_warning(lost, won, alarm):
    """A one-sided sign test at 1 %: 2**-7 is below, 2**-6 is not, and so on."""
    n = lost + won + 5
    target = torch.ones(n, dtype=torch.long)
    right = torch.tensor([[0.0, 1.0]]).repeat(n, 1)
    member, merged = right.clone(), right.clone()
    merged[:lost] = merged[:lost].flip(1)
    member[lost : lost + won] = member[lost : lost + won].flip(1)
    report = MergeReport(view(nn.Linear(1, 2), caller="f"), torch.ones(n, 1), target)
    report._add("member_0", member, 1)
    report._add("naive", merged, 1)
    assert (report.verdict() is not None) == alarm


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
        (
            {"estimator": NeuralNetClassifier(MLP, module__n_features=3, module__n_outputs=2)},
            ValueError,
            "trained with NLLLoss, so its module returns probabilities",
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
        (({"x": X}, Y), TypeError, "WeightAverager: 'X' must be array-like, got dict"),
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
