"""Widening until nets are connected and have learned."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV

from sklmc import DeepEnsemble, LMCScorer, NetClassifier, NetRegressor, WidthSearchCV
from sklmc.exceptions import SklmcWarning

X, y = make_moons(80, noise=0.1, random_state=0)
TARGET = X[:, 0] + X[:, 1]
POPULATION = DeepEnsemble(NetClassifier(max_epochs=2), 2, random_state=0)


class Scripted:
    """A scorer that looks the width up in a table."""

    def __init__(self, table, barrier="neg_calibrated_barrier", score="accuracy"):
        self.table, self.barrier, self.score = table, barrier, score
        self.seen = []

    def __call__(self, estimator, X, y):
        width = estimator.estimator.module__width
        self.seen.append(width)
        barrier, score = self.table[width]
        return {self.barrier: -barrier, self.score: score, f"merged_{self.score}": score - barrier}


def search(table, **options):
    scoring = Scripted(table, **options.pop("scored", {}))
    settings = {"start": 2, "max_width": 16, "cv": 2, "scoring": scoring, **options}
    return WidthSearchCV(settings.pop("estimator", POPULATION), **settings)


def test_widening_stops_at_the_first_width_that_is_enough():
    table = {2: (0.5, 0.9), 4: (0.02, 0.95), 8: (0.01, 0.96), 16: (0.0, 0.97)}
    fitted = search(table).fit(X, y)
    assert fitted.smallest_width_ == 8
    assert [p["estimator__module__width"] for p in fitted.cv_results_["params"]] == [2, 4, 8]
    assert fitted.scoring.seen == [2, 2, 4, 4, 8, 8]
    assert fitted.cv_results_["mean_test_neg_calibrated_barrier"].tolist() == [-0.5, -0.02, -0.01]
    assert fitted.best_params_ == {"estimator__module__width": 8}
    assert len(fitted.best_estimator_.estimators_) == 2
    assert fitted.best_estimator_.estimators_[0].module_.width == 8


def test_dead_nets_are_not_connected():
    """Constant predictions lie on flat ground: the barrier alone would take them."""
    table = {2: (0.0, 0.5), 4: (0.0, 0.6), 8: (0.0, 0.63), 16: (0.0, 1.0)}
    fitted = search(table).fit(X, y)
    assert fitted.constant_score_ == 0.5
    assert fitted.smallest_width_ == 8
    assert search(table, min_skill=0.1).fit(X, y).smallest_width_ == 4
    assert search(table, min_skill=0.0).fit(X, y).smallest_width_ == 2


def test_lopsided_classes_ask_for_more_than_their_share():
    labels = (np.arange(80) % 8 == 0).astype(int)
    table = {2: (0.0, 0.875), 4: (0.0, 0.9), 8: (0.0, 0.92), 16: (0.0, 1.0)}
    assert search(table).fit(X, labels).smallest_width_ == 8


def test_none_with_a_warning_that_says_what_was_reached():
    table = {2: (0.5, 0.9), 4: (0.3, 0.9), 8: (0.2, 0.9), 16: (0.125, 1.0)}
    with pytest.warns(SklmcWarning, match=r"no width up to 16 .*16: barrier 0.125, skill 1\)"):
        fitted = search(table).fit(X, y)
    assert fitted.smallest_width_ is None
    assert len(fitted.cv_results_["params"]) == 4
    assert fitted.best_estimator_ is not None


def test_a_width_that_fails_is_not_connected():
    class Failing(Scripted):
        def __call__(self, estimator, X, y):
            if estimator.estimator.module__width == 2:
                raise ValueError("dead")
            return super().__call__(estimator, X, y)

    table = {4: (0.0, 1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = search(table).set_params(scoring=Failing(table)).fit(X, y)
    assert fitted.smallest_width_ == 4
    assert np.isnan(fitted.cv_results_["mean_test_merged_accuracy"][0])
    with pytest.raises(ValueError, match="dead"):
        search(table).set_params(scoring=Failing(table), error_score="raise").fit(X, y)


@pytest.mark.parametrize(
    "start, factor, largest, expected",
    [(2, 2, 16, [2, 4, 8, 16]), (3, 1.5, 10, [3, 4, 7, 10]), (2, 1.1, 5, [2, 3, 4, 5])],
)
def test_widths_grow_by_the_factor(start, factor, largest, expected):
    scored = dict.fromkeys(range(20), (1.0, 1.0))
    with pytest.warns(SklmcWarning, match="no width"):
        fitted = search(scored, start=start, factor=factor, max_width=largest).fit(X, y)
    assert [p["estimator__module__width"] for p in fitted.cv_results_["params"]] == expected


def test_default_scorer_aligns_and_calibrates():
    net = NetClassifier(max_epochs=15, lr=0.05)
    population = DeepEnsemble(net, 3, random_state=0)
    fitted = WidthSearchCV(population, start=8, max_width=32, target_barrier=0.2, cv=2).fit(X, y)
    assert fitted.smallest_width_ in (8, 16, 32)
    results = fitted.cv_results_
    width = fitted.smallest_width_
    one = clone(population).set_params(estimator__module__width=width)
    scorer = LMCScorer(aligner="weight", calibration="crossfit")
    grid = GridSearchCV(
        one, {"estimator__module__width": [width]}, scoring=scorer, refit=False, cv=2
    ).fit(X, y)
    for key in ("neg_calibrated_barrier", "accuracy", "merged_accuracy"):
        assert results[f"mean_test_{key}"][-1] == grid.cv_results_[f"mean_test_{key}"][0]
    best = results["rank_test_merged_accuracy"].argmin()
    assert fitted.best_index_ == best
    assert fitted.score(X, y) == scorer(fitted.best_estimator_, X, y)["merged_accuracy"]
    assert (fitted.predict(X) == fitted.best_estimator_.predict(X)).all()
    assert fitted.predict_proba(X).shape == (80, 2)


def test_regressors_are_judged_by_r2():
    population = DeepEnsemble(NetRegressor(max_epochs=15, lr=0.05), 2, random_state=0)
    fitted = WidthSearchCV(population, start=4, max_width=8, target_barrier=1.0, cv=2)
    fitted.fit(X, TARGET)
    assert fitted.smallest_width_ in (4, 8)
    assert "mean_test_merged_r2" in fitted.cv_results_
    assert fitted.score(X, TARGET) == fitted.scorer_(fitted.best_estimator_, X, TARGET)["merged_r2"]


def test_result_does_not_depend_on_jobs_and_parameters_stay():
    one = WidthSearchCV(POPULATION, start=2, max_width=4, target_barrier=9.0, min_skill=0, cv=2)
    before = {name: repr(value) for name, value in one.get_params().items()}
    one.fit(X, y)
    with joblib.parallel_config("threading"):
        two = clone(one).set_params(n_jobs=2).fit(X, y)
    assert two.smallest_width_ == one.smallest_width_ == 2
    for key, values in one.cv_results_.items():
        if "time" not in key:
            assert np.array_equal(values, two.cv_results_[key]), key
    assert {name: repr(value) for name, value in one.get_params().items()} == before


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_nets_of_every_width_and_fold_are_stored_and_read(n_jobs, tmp_path, monkeypatch):
    options = {"start": 2, "max_width": 4, "target_barrier": 0.0, "min_skill": 1.0, "cv": 2}
    plain = WidthSearchCV(POPULATION, **options)
    kept = clone(plain).set_params(cache_dir=tmp_path, n_jobs=n_jobs)
    with warnings.catch_warnings(), joblib.parallel_config("threading"):
        warnings.simplefilter("ignore")  # no width is enough
        found = [plain.fit(X, y), clone(kept).fit(X, y)]
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2 * 2 * 2 + 2
        monkeypatch.setattr("sklmc.estimators._cell.fit_members", None)
        found.append(clone(kept).fit(X, y))
    for other in found[1:]:
        for key, values in plain.cv_results_.items():
            if "time" not in key:
                assert np.array_equal(values, other.cv_results_[key]), key
        assert (other.predict_proba(X) == plain.predict_proba(X)).all()
    assert POPULATION.cache_dir is None


@pytest.mark.parametrize(
    "estimator, match",
    [
        (clone(POPULATION).set_params(random_state=None), "'random_state' must be an int"),
        (GridSearchCV(NetClassifier(), {}), "'cache_dir' needs an 'estimator' that can store"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_training(estimator, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        search({}, estimator=estimator, cache_dir=tmp_path).fit(X, y)


def test_progress_is_shown_only_when_asked_for(capsys):
    table = {2: (0.5, 0.9), 4: (0.0, 0.95)}
    search(table).fit(X, y)
    assert capsys.readouterr() == ("", "")
    search(table, verbose=1).fit(X, y)
    assert "barrier 0.0000, skill 0.900" in capsys.readouterr().err
    search(table, verbose=2).fit(X, y)
    assert "{'estimator__module__width': 2}: barrier 0.5000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, match",
    [
        ({"start": 32}, "'start' is larger than 'max_width', got 32 and 16"),
        ({"factor": 1}, "'factor' parameter of WidthSearchCV"),
        ({"start": 0}, "'start' parameter of WidthSearchCV"),
        ({"target_barrier": -0.1}, "'target_barrier' parameter of WidthSearchCV"),
        ({"min_skill": 2}, "'min_skill' parameter of WidthSearchCV"),
        ({"scoring": "accuracy"}, "'scoring' parameter of WidthSearchCV"),
        ({"param_name": "estimator__module__widht"}, "(?s)takes no argument 'widht'"),
        ({"param_name": "width"}, "'width' is no parameter of DeepEnsemble"),
    ],
)
def test_bad_values_are_named(options, match):
    with pytest.raises((ValueError, TypeError), match=match):
        search({2: (0.0, 1.0)}, error_score="raise").set_params(**options).fit(X, y)


def test_scores_that_are_missing_are_named():
    with pytest.raises(ValueError, match="'scoring' must return a dict with 'neg_barrier'"):
        search({2: (0.0, 1.0)}, scored={"barrier": "loss"}).fit(X, y)
