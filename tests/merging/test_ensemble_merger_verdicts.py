"""What EnsembleMerger says of the net that it made, and how it lives among estimators."""

import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from sklmc import EnsembleMerger, PermutationAligner, load_model, merge_models, save_model
from sklmc.exceptions import MergeWarning
from sklmc.merging._reports._fidelity import fidelity_frame
from tests.merging.averagers import bits
from tests.merging.mergers import (
    CODES,
    VALUES,
    X,
    Y,
    assert_equal_nets,
    by_part,
    fitted,
    merger,
    net,
    tensors_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklmc.exceptions.SklmcWarning")


def losing(**parameters):
    """Return a merger of a good net with one that knows nothing: unaligned, mostly the latter."""
    good, bad = fitted()[0], net(1, lr=1e-9)
    made = {"aligner": None, "repair": None, "weights": [0.05, 0.95]}
    return merger([good, bad], **{**made, **parameters}), good


# Verdict


@pytest.mark.parametrize("labelled", [True, False])
def test_where_the_merge_loses_the_best_part_is_recommended(labelled):
    given, good = losing()
    with pytest.warns(MergeWarning, match=r"EnsembleMerger: Use .*recommended_ is that net"):
        found = given.fit(X, Y if labelled else None)
    if labelled:
        assert "of single nets, member_0" in found.verdict_ or "Use member_0" in found.verdict_
        np.testing.assert_array_equal(found.predict(X), good.predict(X))
    assert found.recommended_ is not found.estimator_
    assert bits(found.recommended_) in [bits(one) for one in given.estimators]


def test_the_merged_net_can_be_kept_in_any_case():
    given, _ = losing(keep="merged")
    with pytest.warns(MergeWarning, match="keep='merged' uses it"):
        found = given.fit(X, Y)
    assert found.recommended_ is found.estimator_
    np.testing.assert_array_equal(found.predict(X), found.estimator_.predict(X))


def test_the_part_that_is_recommended_is_the_one_that_was_given():
    """Not the aligned one: both give the same, but users know the former."""
    given, _ = losing()
    given.set_params(aligner="weight", estimators=[net(1, lr=1e-9), fitted()[0]])
    with pytest.warns(MergeWarning):
        found = given.set_params(weights=[0.95, 0.05]).fit(X, Y)
    assert bits(found.recommended_) == bits(fitted()[0])


def test_report_goes_through_all_stages():
    names = ["member_0", "member_1", "member_2"]
    found = merger(repair="refit").fit(X, Y).merge_report_
    assert found["model"].tolist() == [*names, "ensemble", "naive", "aligned", "repaired"]
    plain = merger(repair=None, aligner=None).fit(X).merge_report_
    assert plain["model"].tolist() == [*names, "naive"]
    assert list(plain)[1] == "agreement"
    assert "loss" not in plain
    assert found["n_validation"].eq(30).all()
    ensemble = found.set_index("model").loc["ensemble"]
    assert ensemble["n_parameters"] == 3 * found["n_parameters"][0]


def test_report_is_of_the_samples_kept_back():
    found = merger(repair=None, aligner=None).fit(X, Y)
    held = found.validation_indices_
    assert 0 < len(held) < len(X)
    rows = found.merge_report_.set_index("model")
    for k, one in enumerate(fitted()):
        assert rows.loc[f"member_{k}", "accuracy"] == pytest.approx(one.score(X[held], Y[held]))
    mean = np.mean([one.predict_proba(X[held]) for one in fitted()], axis=0)
    accuracy = np.mean(np.array(list("abc"))[mean.argmax(axis=1)] == Y[held])
    assert rows.loc["ensemble", "accuracy"] == pytest.approx(accuracy)
    assert rows.loc["naive", "accuracy"] == pytest.approx(found.estimator_.score(X[held], Y[held]))


def test_nothing_kept_back_means_training_samples():
    found = merger(repair=None, validation_fraction=None).fit(X, Y)
    assert len(found.validation_indices_) == 0
    assert found.merge_report_["n_validation"].eq(0).all()
    assert "training samples" in found.verdict_


# Fidelity


@pytest.mark.parametrize("labelled", [True, False])
def test_fidelity_of_classifiers_by_hand(labelled):
    found = merger(repair="refit").fit(X, Y if labelled else None)
    held = X[found.validation_indices_]
    nets = [*fitted(), found.estimator_]
    given = [one.predict_proba(held).astype(float) for one in nets]
    ensemble = np.mean(given[:3], axis=0)
    for (_, row), p in zip(found.fidelity_.iterrows(), given, strict=True):
        same = np.mean(p.argmax(axis=1) == ensemble.argmax(axis=1))
        divergence = np.mean(np.sum(ensemble * np.log(ensemble / p), axis=1))
        assert row["agreement"] == pytest.approx(same)
        assert row["kl"] == pytest.approx(divergence, rel=1e-4, abs=1e-7)


def test_fidelity_of_regressors_by_hand():
    y = np.c_[VALUES, X[:, 0]]
    nets = [net(seed, y) for seed in range(2)]
    found = merger(nets, repair="refit", target="mean").fit(X)
    held = X[found.validation_indices_]
    given = [one.predict(held).astype(float) for one in (*nets, found.estimator_)]
    ensemble = np.mean(given[:2], axis=0)
    spread = np.square(ensemble - ensemble.mean(axis=0)).sum(axis=0)
    for (_, row), values in zip(found.fidelity_.iterrows(), given, strict=True):
        wanted = 1.0 - np.square(values - ensemble).sum(axis=0) / spread
        np.testing.assert_allclose([row["r2_0"], row["r2_1"]], wanted, rtol=1e-5)
        assert row["r2"] == pytest.approx(np.median(wanted), rel=1e-5)


def test_fidelity_of_one_logit_and_of_certainty():
    """One logit stands for two; what the ensemble rules out costs nothing."""
    logs = torch.log_softmax(torch.tensor([[0.0, 2.0], [0.0, -3.0]]).double(), dim=1)
    frame = fidelity_frame({"net": torch.tensor([[2.0], [-3.0]])}, logs, classifier=True)
    assert frame["agreement"].item() == 1.0
    assert frame["kl"].item() == pytest.approx(0.0, abs=1e-7)
    sure = torch.tensor([[0.0, -np.inf]]).double()
    frame = fidelity_frame({"net": torch.tensor([[1.0, -1.0]])}, sure, classifier=True)
    assert frame["kl"].item() == pytest.approx(np.log1p(np.exp(-2.0)))


def test_fidelity_of_a_constant_ensemble_is_no_number():
    frame = fidelity_frame({"net": torch.ones(4, 1)}, torch.zeros(4, 1), classifier=False)
    assert frame["r2"].item() == -np.inf


# Few nets, few samples


def test_one_net_is_that_net():
    found = merger(fitted()[:1]).fit(X, Y)
    assert bits(found.estimator_) == bits(fitted()[0])
    assert found.estimator_ is not fitted()[0]
    assert found.repair_ is None
    assert found.target_ is None


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("labelled", [True, False])
def test_few_samples_are_no_hindrance(n, labelled):
    found = merger().fit(X[:n], Y[:n] if labelled else None)
    assert np.isfinite(found.predict_proba(X)).all()
    assert len(found.validation_indices_) == (n == 7 or (n == 2 and not labelled))


def test_merging_is_what_merge_models_does():
    found = merger(repair="refit", target="probability", validation_fraction=None).fit(X, Y)
    wanted = merge_models(fitted(), X, Y, aligner="weight", repair="refit", target="probability")
    assert_equal_nets(found.estimator_, wanted)


# Scoring


@pytest.mark.slow  # scores every row on 300 resamples
@pytest.mark.parametrize("kind", ["array", "tensor", "Dataset", "dict", "by part"])
def test_scores_are_those_of_the_samples_kept_back(kind):
    T, C = torch.from_numpy(X), torch.from_numpy(CODES)
    given = {
        "array": (X, CODES),
        "tensor": (T, C),
        "Dataset": (TensorDataset(T, C), None),
        "dict": ({"x": X}, CODES),
        "by part": (by_part(X), by_part(CODES)),
    }[kind]
    nets = fitted("codes")
    found = merger(nets, repair=None, aligner=None, scoring="balanced_accuracy").fit(*given)
    held, rows = found.validation_indices_, found.merge_report_.set_index("model")
    assert next(iter(rows)) == "balanced_accuracy"
    for k, one in enumerate(nets):
        wanted = balanced_accuracy_score(CODES[held], one.predict(X[held]))
        assert rows.loc[f"member_{k}", "balanced_accuracy"] == pytest.approx(wanted)
    mean = np.mean([one.predict_proba(X[held]) for one in nets], axis=0).argmax(axis=1)
    wanted = balanced_accuracy_score(CODES[held], mean)
    assert rows.loc["ensemble", "balanced_accuracy"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    "nets, X, y, error, said",
    [
        (fitted(), X, None, ValueError, "'scoring' needs labels"),
        (
            fitted("codes"),
            DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(CODES))),
            None,
            TypeError,
            "'X' is a DataLoader",
        ),
        (fitted(), (X,), Y, TypeError, "'X' is a tuple"),
        ([one.module_ for one in fitted()], X, CODES, TypeError, "which a MLP has not"),
    ],
)
def test_what_cannot_be_scored_is_refused(nets, X, y, error, said):
    with pytest.raises(error, match=said):
        merger(nets, repair=None, scoring="accuracy").fit(X, y)


# An estimator among others


def test_clones_hold_the_same_fitted_nets():
    aligner = PermutationAligner("weight", random_state=3)
    found = merger(aligner=aligner, keep="merged").fit(X, Y)
    other = clone(found)
    assert other.estimators is found.estimators
    assert other.aligner is not aligner
    assert other.aligner.random_state == 3
    assert other.keep == "merged"
    assert not hasattr(other, "estimator_")
    assert_equal_nets(other.fit(X, Y).estimator_, found.estimator_)


def test_parameters_are_those_of_the_merger():
    found = merger(aligner=PermutationAligner("weight"))
    names = set(found.get_params(deep=False))
    assert {"estimators", "aligner", "target", "repair", "weights", "keep", "scoring"} <= names
    deep = set(found.get_params())
    assert "aligner__method" in deep
    assert not any(name.startswith("estimators__") for name in deep)
    found.set_params(aligner__method="activation", repair=None)
    assert found.aligner.method == "activation"
    assert found.repair is None


def test_fit_changes_no_parameter():
    found = merger()
    before = found.get_params(deep=False)
    after = found.fit(X, Y).get_params(deep=False)
    assert all(after[name] is value for name, value in before.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklmc.exceptions.MergeWarning")
def test_options_are_searched():
    options = {"target": ["mean", "probability"], "repair": ["refit"], "aligner": [None]}
    found = GridSearchCV(merger(), options, cv=2, error_score="raise").fit(X, Y)
    assert set(found.best_params_) == set(options)
    again = GridSearchCV(merger(), options, cv=2, n_jobs=2, error_score="raise").fit(X, Y)
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], again.cv_results_["mean_test_score"]
    )


@pytest.mark.filterwarnings("ignore::sklmc.exceptions.MergeWarning")
def test_it_stands_at_the_end_of_a_pipeline():
    found = make_pipeline(StandardScaler(with_mean=False, with_std=False), merger()).fit(X, Y)
    np.testing.assert_array_equal(found.predict(X), merger().fit(X, Y).predict(X))
    scores = cross_val_score(found, X, Y, cv=2, error_score="raise")
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("road", ["pickle", "joblib", "file"])
@pytest.mark.parametrize("kind", ["labels", "values", "by part"])
@pytest.mark.filterwarnings("ignore::sklmc.exceptions.MergeWarning")
def test_it_comes_back_the_same(kind, road, tmp_path):
    if kind == "values":
        found = merger(fitted("values")).fit(X, VALUES)
    elif kind == "labels":
        found = merger().fit(X, Y)
    else:
        found = merger().fit(by_part(X), by_part(Y))
    if road == "file":
        save_model(found, tmp_path / "m.safetensors")
        other = load_model(tmp_path / "m.safetensors")
    elif road == "pickle":
        other = pickle.loads(pickle.dumps(found))
    else:
        joblib.dump(found, stream := io.BytesIO())
        other = joblib.load(io.BytesIO(stream.getvalue()))
    np.testing.assert_array_equal(other.predict(X), found.predict(X))
    assert other.verdict_ == found.verdict_
    for name in ("merge_report_", "fidelity_"):
        assert getattr(other, name).equals(getattr(found, name))
    assert clone(other).fit(X, VALUES if kind == "values" else Y).verdict_


def test_pages_show_the_verdict():
    unfitted = merger()
    assert "Use " not in unfitted._repr_html_()
    found = unfitted.fit(X, Y)
    assert found.verdict_.replace("'", "&#x27;")[:40] in found._repr_html_()
    assert repr(found).startswith("EnsembleMerger(")


def test_nothing_is_left_to_chance():
    first = merger(random_state=3).fit(X, Y)
    torch.manual_seed(99)
    again, other = merger(random_state=3).fit(X, Y), merger(random_state=4).fit(X, Y)
    assert_equal_nets(first.estimator_, again.estimator_)
    assert first.merge_report_.equals(again.merge_report_)
    assert first.validation_indices_.tolist() != other.validation_indices_.tolist()


def test_a_second_fit_forgets_the_first():
    found = merger().fit(by_part(X), by_part(Y))
    again = found.fit(X, Y)
    assert again is found
    assert found.class_counts_ is None
    assert_equal_nets(found.estimator_, merger().fit(X, Y).estimator_)


def test_it_is_what_its_nets_are():
    assert is_classifier(merger())
    assert is_regressor(merger(fitted("values")))
    modules = [one.module_ for one in fitted()]
    assert not is_classifier(merger(modules))
    assert hasattr(merger(), "predict_proba")
    assert not hasattr(merger(fitted("values")), "predict_proba")


@pytest.mark.parametrize("name", ["classes_", "merge_report_", "class_counts_", "verdict_"])
def test_before_fit_there_is_nothing(name):
    with pytest.raises(AttributeError):
        getattr(merger(), name)
    with pytest.raises(ValueError, match="not fitted"):
        merger().predict(X)


def test_provenance_names_how_it_was_made():
    found = EnsembleMerger(fitted(), aligner="weight", repair=None, random_state=0).fit(X, Y)
    parents = found.estimator_.provenance_
    assert tensors_of(found.estimator_).keys() == tensors_of(fitted()[0]).keys()
    assert "EnsembleMerger" in str(parents)
