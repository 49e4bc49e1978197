"""The verdict on a merged net: scorers, intervals, paired differences, and the sentence."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score, make_scorer, roc_auc_score
from torch import nn

from sklmc import NetClassifier, NetRegressor, WeightAverager
from sklmc.exceptions import MergeWarning
from sklmc.merging._reports._report import MergeReport
from sklmc.merging._reports._verdict import Comparison, draw_resamples
from sklmc.models import Arrays, view
from tests.merging.averagers import VALUES, X, Y, averager


def report_of(*rights):
    """Return the report of two members, their ensemble and a merged net, by who is right where."""
    n = len(rights[0])
    target = torch.ones(n, dtype=torch.long)
    report = MergeReport(
        view(nn.Linear(1, 2), caller="f"), Arrays(torch.ones(n, 1)), target, None, n
    )
    for name, right in zip(("member_0", "member_1", "ensemble", "aligned"), rights, strict=True):
        logits = torch.stack([1.0 - torch.tensor(right), torch.tensor(right) * 1.0], dim=1)
        report._add(name, logits, 1)
    report.n_members = 2
    return report.finish()


def right(n_wrong, n=100, start=0):
    values = np.ones(n)
    values[start : start + n_wrong] = 0.0
    return values


@pytest.mark.parametrize(
    "wrong, said, warns",
    [
        (
            (5, 40, 5, 30),
            "Use member_0: the merged net is worse than its best part (accuracy 0.7",
            1,
        ),
        ((30, 40, 30, 5), "Use the merged net: it is better than its best part (accuracy 0.95", 0),
        (
            (30, 32, 5, 30),
            "Use the ensemble: it is better than the merged net (difference +0.25",
            0,
        ),
        ((20, 40, 1, 40), "Use the ensemble: it is better than member_0 (difference +0.19", 1),
        ((5, 40, 5, 7), "Use the merged net or member_0: they are not distinguishable (acc", 0),
    ],
)
def test_the_sentence_names_what_to_use(wrong, said, warns):
    rows, verdict = report_of(*map(right, wrong))
    assert verdict.text.startswith(said)
    assert verdict.warns == bool(warns)
    assert verdict.text.count(". ") == 0  # one sentence
    assert "on 100 held-out samples" in verdict.text
    assert rows[-1]["margin"] == pytest.approx((min(wrong[:2]) - wrong[3]) / 100)
    assert rows[-1]["n_validation"] == 100


def test_few_samples_tell_nothing_apart():
    rows, verdict = report_of(*(right(k, 6) for k in (0, 0, 0, 6)))
    assert "not distinguishable" in verdict.text
    assert rows[-1]["margin_low"] == -np.inf


@pytest.mark.parametrize("swap", [False, True])
def test_interval_of_a_paired_difference_is_that_of_student(swap):
    """With one part nothing is picked: mean and standard error of the differences."""
    rng = np.random.default_rng(0)
    scores = rng.random((2, 400)) < np.array([[0.9], [0.8]])
    counts = np.stack([np.bincount(rows, minlength=400) for rows in draw_resamples(400)])
    resampled = scores @ counts.T / 400
    found = Comparison(scores.mean(axis=1), resampled, 400).difference(int(swap), [int(not swap)])
    differences = (scores[int(swap)] * 1.0) - scores[int(not swap)]
    reach = 2.59 * differences.std(ddof=1) / 20  # Student's t at 99 % with 399 degrees
    assert found.value == pytest.approx(differences.mean())
    resampling = 0.15 * reach  # error of a standard deviation (and a mean) of 300 draws
    assert found.low == pytest.approx(differences.mean() - reach, abs=resampling)
    assert found.high == pytest.approx(differences.mean() + reach, abs=resampling)


def test_being_picked_is_no_merit():
    """Of equal nets the best looks better than another one; seldom does it count as better."""
    rng = np.random.default_rng(0)
    counts = np.stack([np.bincount(rows, minlength=100) for rows in draw_resamples(100)])
    alarms, lead = 0, []
    for _ in range(200):
        scores = rng.random((6, 100)) < 0.8
        comparison = Comparison(scores.mean(axis=1), scores @ counts.T / 100, 100)
        difference = comparison.difference(5, [0, 1, 2, 3, 4])
        alarms += difference.worse
        lead.append(difference.value)
    assert np.mean(lead) < -0.03
    assert alarms <= 10  # 5 %; without taking off what resampling adds it is 20 %


def test_rare_class_that_the_merged_net_forgets_is_announced():
    rare = {"weights": [0.97], "flip_y": 0.01, "n_informative": 8, "random_state": 0}
    samples, labels = make_classification(2000, **rare)
    inner = NetClassifier(module__width=4, max_epochs=5, lr=0.001)
    with pytest.warns(MergeWarning, match="predicts one class on all held-back rows"):
        fitted = WeightAverager(inner, 5, random_state=0).fit(samples, labels)
    held = fitted.validation_indices_
    alive = [
        k for k, net in enumerate(fitted.estimators_) if len(set(net.predict(samples[held]))) > 1
    ]
    assert 1 < len(alive) < 5
    assert fitted.merge_report_["accuracy"].min() > 0.95
    assert len(set(fitted.predict(samples[held]))) == 1
    names = ", ".join(map(str, alive))
    said = f"the merged net predicts one class on all held-back rows, members {names} do not"
    assert said in fitted.verdict_
    assert said in fitted._repr_html_()
    assert int(fitted.verdict_[len("Use member_")]) in alive


@pytest.mark.parametrize(
    "scoring, names",
    [
        ("balanced_accuracy", ["balanced_accuracy"]),
        (["roc_auc", "accuracy"], ["roc_auc", "accuracy"]),
        ({"area": "roc_auc", "own": make_scorer(balanced_accuracy_score)}, ["area", "own"]),
        (make_scorer(balanced_accuracy_score), ["score"]),
        (lambda net, X, y: {"a": net.score(X, y), "b": 2.0}, ["a", "b"]),
        ("neg_log_loss", ["neg_log_loss"]),
    ],
    ids=["name", "list", "dict", "scorer", "callable", "loss"],
)
def test_scores_are_columns_and_the_first_decides(scoring, names):
    fitted = averager(validation_fraction=0.5, scoring=scoring).fit(X, Y)
    report = fitted.merge_report_
    assert report.columns[1] == names[0]
    assert set(names) | {"accuracy"} <= set(report.columns)
    assert f"({names[0]} " in fitted.verdict_
    first = report[names[0]]
    assert (report["low"] <= first + 1e-12).all()
    assert (report["high"] >= first - 1e-12).all()
    best = first[report["model"].str.startswith("member_")].max()
    np.testing.assert_allclose(report["margin"], first - best, atol=1e-12)
    assert (report["margin_low"] <= report["margin_high"]).all()


def test_scorers_see_the_estimators_and_the_held_out_rows():
    fitted = averager(validation_fraction=0.5, scoring=["roc_auc", "accuracy"]).fit(X, Y)
    held = fitted.validation_indices_
    report = fitted.merge_report_.set_index("model")
    merged = fitted.predict_proba(X[held])[:, 1]
    members = [net.predict_proba(X[held])[:, 1] for net in fitted.estimators_]
    assert report["roc_auc"].iloc[-1] == roc_auc_score(Y[held], merged)
    mean = roc_auc_score(Y[held], np.mean(members, axis=0))
    assert report.loc["ensemble", "roc_auc"] == pytest.approx(mean)
    assert report.loc["member_1", "roc_auc"] == pytest.approx(roc_auc_score(Y[held], members[1]))
    assert report["n_validation"].unique().tolist() == [len(held)]


def test_intervals_by_scorer_are_those_of_the_score_itself():
    plain = averager(validation_fraction=0.5).fit(X, Y).merge_report_
    scored = averager(validation_fraction=0.5, scoring="accuracy").fit(X, Y).merge_report_
    for name in ("accuracy", "low", "high", "margin", "margin_low", "margin_high"):
        np.testing.assert_allclose(plain[name], scored[name], atol=1e-12)
    regressor = {"estimator": NetRegressor(module__width=8, max_epochs=3)}
    plain = averager(validation_fraction=0.5, **regressor).fit(X, VALUES).merge_report_
    scored = averager(validation_fraction=0.5, scoring="r2", **regressor).fit(X, VALUES)
    for name in ("r2", "low", "high", "margin_low", "margin_high"):
        np.testing.assert_allclose(plain[name], scored.merge_report_[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "scoring, said",
    [
        ("balanced_acuracy", "no scorer of scikit-learn.*Did you mean 'balanced_accuracy'"),
        (["accuracy", 3], "must be a scorer's name, a callable, a list of names or a dict"),
        ([], "'scoring' is empty"),
        ({"loss": "accuracy"}, "'scoring' calls a score 'loss', as a column of the report"),
        (3, "'scoring' parameter of WeightAverager"),
    ],
    ids=str,
)
def test_bad_scoring_is_refused(scoring, said):
    with pytest.raises((TypeError, ValueError), match=said):
        averager(scoring=scoring).fit(X, Y)


def test_training_rows_are_called_so():
    fitted = averager(validation_fraction=None).fit(X, Y)
    assert "on 120 training samples" in fitted.verdict_
    assert fitted.merge_report_["n_validation"].unique().tolist() == [0]


def test_a_single_member_is_its_own_merge():
    with warnings.catch_warnings():
        warnings.simplefilter("error", MergeWarning)
        fitted = averager(1).fit(X, Y)
    assert "not distinguishable" in fitted.verdict_
