"""What WeightAverager measures of the merged net and its parts, and what it fits on that."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklmc import (
    DeepEnsemble,
    NetClassifier,
    NetRegressor,
    merge_models,
)
from sklmc.exceptions import MergeWarning
from sklmc.merging._reports._report import MergeReport
from sklmc.models import Arrays, fit_inverse_temperature, per_sample_loss, predict_outputs, view
from sklmc.nets import MLP
from tests.merging.averagers import CODES, VALUES, X, Y, averager, bits, net


def test_report_has_a_row_for_everything(fitted):
    report = fitted.merge_report_
    assert report["model"].tolist() == [
        *("member_0", "member_1", "member_2"),
        *("ensemble", "naive", "aligned", "repaired"),
    ]
    assert fitted.repair_ == "refit"
    assert report.columns.tolist() == [
        *("model", "accuracy", "low", "high", "margin", "margin_low", "margin_high"),
        *("loss", "calibration_error", "n_validation", "n_parameters", "n_multiply_adds"),
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
    report = MergeReport(view(nn.Linear(1, 2), caller="f"), Arrays(torch.ones(4, 1)), target)
    report._add("member_0", logits, 1)
    sure, unsure = torch.softmax(torch.tensor([[2.0, 0.0], [0.1, 0.0]]).double(), dim=1)[:, 0]
    expected = (3 * (1 - sure) + (1 - unsure)) / 4
    assert report.measured[0]["calibration_error"] == pytest.approx(float(expected))
    wrong = MergeReport(view(nn.Linear(1, 2), caller="f"), Arrays(torch.ones(4, 1)), 1 - target)
    wrong._add("member_0", logits, 1)
    expected = (3 * sure + unsure) / 4
    assert wrong.measured[0]["calibration_error"] == pytest.approx(float(expected))


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
    for other in (*fitted.estimators_, uniform.estimator_):
        assert least <= calibrated_loss(other) + 1e-6  # sums in another order


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
    assert "against 1 of member_0, on 60 held-out samples" in said
    assert fitted.verdict_ in said
    assert warning.filename == __file__


def test_tiny_validation_part_raises_no_alarm():
    caught, fitted = broken(12, validation_fraction=0.5)
    assert not caught
    assert fitted.merge_report_["accuracy"].iloc[-1] < 1.0
