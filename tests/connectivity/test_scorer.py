"""LMCScorer: paths, pairs and the scorer protocol."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_regression
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklmc import (
    DeepEnsemble,
    LMCScorer,
    NetClassifier,
    NetRegressor,
    interpolate_models,
)
from sklmc._sklearn import FrozenEstimator
from sklmc.alignment import MultiAligner
from sklmc.exceptions import (
    StaleStatisticsWarning,
)
from sklmc.merging import repair
from sklmc.symmetry import discover_symmetry

TINY = {"module__width": 4, "max_epochs": 3}


@pytest.fixture(scope="module")
def ensemble(moons):
    return DeepEnsemble(NetClassifier(**TINY), n_estimators=3, random_state=0).fit(*moons)


# Paths


def test_path_is_that_of_the_interpolated_estimators(nets, moons):
    X, y = moons
    score = LMCScorer().path(nets[0], nets[1], X, y)
    for alpha, loss, error in zip(score.alphas, score.loss, score.error):
        net = interpolate_models(nets[0], nets[1], alpha)
        assert error == pytest.approx(1 - net.score(X, y))
        assert loss == pytest.approx(log_loss(y, net.predict_proba(X)), rel=1e-5)


def test_path_turned_round(nets, moons):
    there = LMCScorer(calibration="crossfit").path(nets[0], nets[1], *moons)
    back = LMCScorer(calibration="crossfit").path(nets[1], nets[0], *moons)
    np.testing.assert_allclose(back.loss, there.loss[::-1], rtol=1e-5)
    np.testing.assert_allclose(back.calibrated_loss, there.calibrated_loss[::-1], rtol=1e-5)


def test_error_metric_and_other_baselines(nets, moons):
    score = LMCScorer("error", baseline="max").path(nets[0], nets[1], *moons)
    assert score.barrier == score.epsilon == score.barrier_for(baseline="max", metric="error")


def test_string_labels_and_frames(moons):
    X, y = moons
    words = np.array(["no", "yes"])[y]
    a, b = (NetClassifier(random_state=seed, **TINY).fit(X, words) for seed in range(2))
    c, d = (NetClassifier(random_state=seed, **TINY).fit(X, y) for seed in range(2))
    seen = LMCScorer().path(a, b, X.tolist(), words)
    np.testing.assert_array_equal(seen.loss, LMCScorer().path(c, d, X, y).loss)


def test_frozen_and_plain_modules(nets, moons):
    X, y = moons
    wanted = LMCScorer().path(nets[0], nets[1], X, y)
    frozen = LMCScorer().path(*(FrozenEstimator(net) for net in nets[:2]), X, y)
    modules = LMCScorer().path(*(net.module_ for net in nets[:2]), X.astype(np.float32), y)
    np.testing.assert_array_equal(frozen.loss, wanted.loss)
    np.testing.assert_array_equal(modules.loss, wanted.loss)


def test_pipeline_counts_as_its_last_step_seen_through_the_others(moons):
    X, y = moons
    pipes = [
        make_pipeline(StandardScaler(), NetClassifier(random_state=seed, **TINY)).fit(X, y)
        for seed in range(2)
    ]
    scaled = pipes[0][0].transform(X)
    wanted = LMCScorer(calibration=(scaled, y)).path(*(pipe[-1] for pipe in pipes), scaled, y)
    seen = LMCScorer(calibration=(X, y)).path(*pipes, X, y)
    np.testing.assert_array_equal(seen.loss, wanted.loss)
    np.testing.assert_array_equal(seen.calibrated_loss, wanted.calibrated_loss)
    nested = [FrozenEstimator(Pipeline([("all", pipe)])) for pipe in pipes]
    np.testing.assert_array_equal(LMCScorer().path(*nested, X, y).loss, wanted.loss)


def test_ends_are_pipelines_with_scalers_of_their_own(moons):
    X, y = moons
    a = make_pipeline(StandardScaler(), NetClassifier(**TINY)).fit(X, y)
    b = make_pipeline(StandardScaler(), NetClassifier(**TINY)).fit(2 * X + 1, y)
    for other in (b, b[-1]):
        score = LMCScorer().path(a, other, X, y)
        wanted = log_loss(y, other.predict_proba(X))
        assert score.loss[-1] == pytest.approx(wanted, rel=1e-5)


def test_regression(nets):
    X, y = make_regression(50, 4, random_state=0)
    y = y / 100
    a, b = (NetRegressor(random_state=seed, **TINY).fit(X, y) for seed in range(2))
    score = LMCScorer().path(a, b, X, y)
    for alpha, loss in zip(score.alphas, score.loss):
        predicted = interpolate_models(a, b, alpha).predict(X).ravel()
        assert loss == pytest.approx(np.mean((predicted - y) ** 2), rel=1e-5)
    np.testing.assert_array_equal(score.error, score.loss)
    with pytest.raises(ValueError, match="'calibration' fits an inverse temperature, which regr"):
        LMCScorer(calibration="crossfit").path(a, b, X, y)


# Calibration


def test_end_points_are_calibrated_like_the_rest(nets, moons):
    """A point on the path gets the same loss whether it is an end or not."""
    middle = interpolate_models(nets[0], nets[1], 0.5)
    for calibration in ("crossfit", "in_sample", moons):
        scorer = LMCScorer(n_alphas=3, calibration=calibration)
        inner = scorer.path(nets[0], nets[1], *moons)
        as_end = scorer.path(middle, nets[1], *moons)
        assert as_end.calibrated_loss[0] == pytest.approx(inner.calibrated_loss[1], rel=1e-5)
        assert as_end.inverse_temperature[0] == pytest.approx(
            inner.inverse_temperature[1], rel=1e-4
        )


def test_given_calibration_data_are_not_scored(nets, moons):
    X, y = moons
    bare = LMCScorer().path(nets[0], nets[1], X[:60], y[:60])
    score = LMCScorer(calibration=(X[60:], y[60:])).path(nets[0], nets[1], X[:60], y[:60])
    np.testing.assert_allclose(score.loss, bare.loss, rtol=1e-6)
    np.testing.assert_array_equal(score.error, bare.error)


@pytest.fixture(scope="module")
def overconfident():
    """Pairs of nets trained to the end on breast cancer, and 85 rows they have not seen."""
    X, y = load_breast_cancer(return_X_y=True)
    cases = []
    for seed in range(3):
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=85, random_state=seed, stratify=y
        )
        scaler = StandardScaler().fit(X_train)
        nets = [
            NetClassifier(module__width=16, max_epochs=20, random_state=10 * seed + k).fit(
                scaler.transform(X_train), y_train
            )
            for k in range(2)
        ]
        cases.append((nets, scaler.transform(X_test), y_test))
    return cases


def test_few_rows_make_calibration_hardly_worse_than_none(overconfident):
    """One parameter and half an imagined sample cost about 1 / n, n being the rows that fit it."""
    for nets, X, y in overconfident:
        score = LMCScorer(calibration="crossfit").path(*nets, X, y)
        assert (score.calibrated_loss <= score.loss + 1.25 / (0.8 * 85)).all()
        given = LMCScorer(calibration=(X[:40], y[:40])).path(*nets, X, y)
        assert (given.calibrated_loss <= given.loss + 1.25 / 40).all()
        in_sample = LMCScorer(calibration="in_sample").path(*nets, X, y)
        assert (in_sample.calibrated_loss < 0.95 * in_sample.loss).any()
        over = in_sample.loss - in_sample.calibrated_loss  # confidence that is too much
        worst = over.argmax()
        if over[worst] > 0.03:  # most of it goes, though 85 rows are few
            assert score.loss[worst] - score.calibrated_loss[worst] > 0.8 * over[worst]


# Repair


def test_batch_norm_statistics_are_estimated_again_at_inner_alphas(make_mlps, data):
    X, y = data
    a, b = make_mlps(2, norm="batch", depth=2)
    score = LMCScorer(n_alphas=5, repair="batch_norm").path(a, b, X, y)
    for alpha, loss in zip(score.alphas[1:-1], score.loss[1:-1]):
        net = repair(interpolate_models(a, b, alpha), [a, b], X, method="batch_norm").eval()
        with torch.no_grad():
            logits = net(torch.from_numpy(X)).double()
        wanted = nn.functional.cross_entropy(logits, torch.from_numpy(y))
        assert loss == pytest.approx(float(wanted), rel=1e-5)
    said = r"2 batch-norm layers .* was not measured: set repair='batch_norm'"
    with pytest.warns(StaleStatisticsWarning, match=said):
        bare = LMCScorer(n_alphas=5).path(a, b, X, y)
    np.testing.assert_allclose(bare.loss[[0, -1]], score.loss[[0, -1]], rtol=1e-6)
    assert not np.allclose(bare.loss, score.loss)


def test_repair_uses_the_calibration_data_where_there_are_any(make_mlps, data):
    X, y = data
    a, b = make_mlps(2, norm="batch")
    scorer = LMCScorer(n_alphas=3, repair="batch_norm", calibration=(X[30:], y[30:]))
    one = scorer.path(a, b, X[:5], y[:5])
    whole = scorer.path(a, b, X[:30], y[:30])
    net = repair(interpolate_models(a, b, 0.5), [a, b], X[30:], method="batch_norm").eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(X[:5])).double()
    wanted = float(nn.functional.cross_entropy(logits, torch.from_numpy(y[:5])))
    assert one.loss[1] == pytest.approx(wanted, rel=1e-5)
    assert one.loss[1] != pytest.approx(whole.loss[1])


def test_repair_without_batch_norm_changes_nothing(nets, moons):
    bare = LMCScorer().path(nets[0], nets[1], *moons)
    repaired = LMCScorer(repair="batch_norm").path(nets[0], nets[1], *moons)
    np.testing.assert_array_equal(bare.loss, repaired.loss)


# Pairs


def test_pairs_are_the_paths(nets, moons):
    scorer = LMCScorer(calibration="crossfit")
    score = scorer.pairwise(nets, *moons)
    for i, j in score.pairs:
        path = scorer.path(nets[i], nets[j], *moons)
        np.testing.assert_allclose(score.path(i, j).loss, path.loss, rtol=1e-6)
        assert score.barrier[i, j] == pytest.approx(path.barrier)
        assert score.epsilon[i, j] == pytest.approx(path.epsilon)
        assert score.calibrated_barrier[i, j] == pytest.approx(
            path.barrier_for(metric="calibrated_loss"), abs=1e-7
        )


def test_the_same_object_twice_has_barrier_zero(nets, moons):
    score = LMCScorer(aligner="weight").pairwise([nets[0], nets[1], nets[0]], *moons)
    assert score.barrier[0, 2] == score.epsilon[0, 2] == 0.0
    assert score.barrier[0, 1] == pytest.approx(score.barrier[2, 1], rel=0.2)


def test_pair_of_equal_nets_among_others_is_calibrated_as_one(nets, moons):
    scorer = LMCScorer(calibration="in_sample")
    score = scorer.pairwise([nets[0], nets[1], nets[0]], *moons)
    alone = scorer.path(nets[0], nets[1], *moons)
    np.testing.assert_allclose(score.path(0, 1).calibrated_loss, alone.calibrated_loss, rtol=1e-6)
    np.testing.assert_allclose(score.path(1, 2).calibrated_loss, alone.calibrated_loss[::-1], 1e-4)
    assert np.ptp(score.path(0, 2).calibrated_loss) == 0.0
    assert score.path(0, 2).calibrated_loss[0] == score.path(0, 1).calibrated_loss[0]


class AllToFirst:
    """An aligner of all models at once: shuffles the units of every model but the first alike."""

    def get_params(self, deep=False):
        return {}

    def fit(self, models, X=None, y=None):
        self.n_models_ = len(models)
        return self

    def transform(self, models):
        symmetry = discover_symmetry(models[0])
        moved = symmetry.random_permutation(0)
        return [models[0], *(symmetry.apply(model, moved) for model in models[1:])]


def test_aligner_of_all_models_brings_them_into_one_frame(nets, moons):
    score = LMCScorer(aligner=AllToFirst()).pairwise(nets, *moons)
    bare = LMCScorer().pairwise(nets, *moons)
    moved = AllToFirst().fit(nets).transform(nets)
    np.testing.assert_allclose(score.loss, LMCScorer().pairwise(moved, *moons).loss)
    np.testing.assert_allclose(score.path(1, 2).loss, bare.path(1, 2).loss, rtol=1e-5)
    assert not np.allclose(score.path(0, 1).loss, bare.path(0, 1).loss)


def test_merge_many_is_a_common_frame(nets, moons):
    named = LMCScorer(aligner="merge_many").pairwise(nets, *moons)
    own = LMCScorer(aligner=MultiAligner("merge_many", random_state=0)).pairwise(nets, *moons)
    np.testing.assert_array_equal(named.loss, own.loss)
    naive = LMCScorer().pairwise(nets, *moons)
    upper = np.triu_indices(len(nets), 1)
    assert np.median(named.barrier[upper]) < np.median(naive.barrier[upper])


@pytest.mark.slow
@pytest.mark.parametrize("aligner", [None, "weight"])
@pytest.mark.parametrize("n_jobs, backend", [(2, "loky"), (2, "threading"), (3, "loky")])
def test_numbers_do_not_depend_on_n_jobs(make_mlps, data, aligner, n_jobs, backend):
    nets = make_mlps(6, depth=2, norm="layer")
    scorer = LMCScorer(calibration="crossfit", aligner=aligner)
    wanted = scorer.pairwise(nets, *data)
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        seen = scorer.pairwise(nets, *data)
    for name in ("loss", "error", "calibrated_loss", "inverse_temperature"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(wanted, name))


# As a scorer


def test_scores_of_an_ensemble_are_medians_over_pairs_and_means_over_members(ensemble, moons):
    X, y = moons
    pairs = LMCScorer(calibration="crossfit").pairwise(ensemble.estimators_, X, y)
    upper = np.triu_indices(3, 1)
    assert LMCScorer(calibration="crossfit")(ensemble, X, y) == {
        "neg_barrier": -np.median(pairs.barrier[upper]),
        "neg_epsilon": -np.median(pairs.epsilon[upper]),
        "neg_calibrated_barrier": -np.median(pairs.calibrated_barrier[upper]),
        "neg_merged_loss": -np.median(pairs.midpoints("loss")),
        "accuracy": pytest.approx(np.mean([net.score(X, y) for net in ensemble.estimators_])),
        "merged_accuracy": pytest.approx(1 - np.median(pairs.midpoints("error"))),
    }


def test_scores_of_regressors():
    X, y = make_regression(50, 4, random_state=0)
    y = y / 100
    ensemble = DeepEnsemble(NetRegressor(**TINY), n_estimators=2, random_state=0).fit(X, y)
    values = LMCScorer()(ensemble, X, y)
    assert set(values) == {"neg_barrier", "neg_epsilon", "neg_merged_loss", "r2", "merged_r2"}
    members = [r2_score(y, net.predict(X)) for net in ensemble.estimators_]
    assert values["r2"] == pytest.approx(np.mean(members), rel=1e-5)
    middle = interpolate_models(*ensemble.estimators_, 0.5)
    assert values["merged_r2"] == pytest.approx(r2_score(y, middle.predict(X)), rel=1e-5)


@pytest.mark.parametrize("name", ["neg_barrier", "merged_accuracy"])
def test_output_names_one_score(ensemble, moons, name):
    value = LMCScorer(output=name)(ensemble, *moons)
    assert isinstance(value, float)
    assert value == LMCScorer()(ensemble, *moons)[name]


def test_grid_search_with_and_without_a_pipeline(moons):
    ensemble = DeepEnsemble(NetClassifier(**TINY), n_estimators=2, random_state=0)
    pipe = Pipeline([("scale", StandardScaler()), ("nets", ensemble)])
    for estimator, prefix in ((ensemble, ""), (pipe, "nets__")):
        search = GridSearchCV(
            estimator,
            {f"{prefix}estimator__module__width": [2, 4]},
            scoring=LMCScorer(),
            refit="merged_accuracy",
            cv=2,
        ).fit(*moons)
        for name in ("neg_barrier", "neg_merged_loss", "accuracy", "merged_accuracy"):
            assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
        assert search.best_score_ == search.cv_results_["mean_test_merged_accuracy"].max()


@pytest.mark.slow
def test_cross_val_score_is_the_same_for_every_n_jobs_and_backend(moons):
    ensemble = DeepEnsemble(NetClassifier(**TINY), n_estimators=3, random_state=0)
    pipe = make_pipeline(StandardScaler(), ensemble)
    scorer = LMCScorer(output="neg_barrier", aligner="weight")
    wanted = cross_val_score(pipe, *moons, scoring=scorer, cv=2)
    assert np.isfinite(wanted).all()
    for backend in ("loky", "threading"):
        with joblib.parallel_config(backend):
            seen = cross_val_score(pipe, *moons, scoring=scorer, cv=2, n_jobs=2)
        np.testing.assert_array_equal(seen, wanted)


def test_scorer_is_cloned_and_shown_like_an_estimator():
    scorer = LMCScorer("error", n_alphas=5, aligner="weight")
    assert clone(scorer).get_params() == scorer.get_params()
    assert repr(scorer) == "LMCScorer(aligner='weight', metric='error', n_alphas=5)"
