"""What nets are held to: scikit-learn's scorers, called with weights, and on resampled rows."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from sklmc._validation import did_you_mean
from sklmc.estimators._members import Data
from sklmc.merging._reports._holdout import take_rows

SINGLE = "score"  # what the score of a callable is called

Scoring = Mapping[str, Callable] | Callable  # a callable may return several scores by name


def read_scoring(scoring, caller: str) -> Scoring:
    """Return scorers by name, or the one callable that was given."""
    if callable(scoring):
        return scoring
    if isinstance(scoring, str):
        scoring = [scoring]
    named = scoring if isinstance(scoring, Mapping) else {name: name for name in scoring}
    if not named:
        raise ValueError(f"{caller}: 'scoring' is empty; name a scorer, or pass None.")
    found = {}
    for name, scorer in named.items():
        if isinstance(scorer, str) and scorer not in get_scorer_names():
            raise ValueError(
                f"{caller}: 'scoring' {scorer!r} is no scorer of scikit-learn; "
                f"sklearn.metrics.get_scorer_names() lists them."
                f"{did_you_mean(scorer, get_scorer_names())}"
            )
        if not isinstance(name, str) or not (isinstance(scorer, str) or callable(scorer)):
            raise TypeError(
                f"{caller}: 'scoring' must be a scorer's name, a callable, a list of names or a "
                f"dict of scorers by name, got {scorer!r} in it."
            )
        found[name] = get_scorer(scorer) if isinstance(scorer, str) else scorer
    return found


def call_scorer(scorer: Callable, estimator, data: Data, caller: str):
    """Return what a scorer says of an estimator; with weights, if there are any."""
    X, y, weights = data
    if weights is None:
        return scorer(estimator, X, y)
    parameters = inspect.signature(scorer).parameters.values()
    if not any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(
            f"{caller}: 'sample_weight' was given, but 'scoring' {scorer!r} takes none; give it an "
            "argument 'sample_weight', or pass no weights."
        )
    return scorer(estimator, X, y, sample_weight=weights)


def score_by_name(scoring: Scoring, estimator, data: Data, caller: str) -> dict[str, float]:
    """Return the scores of an estimator by their names."""
    if not isinstance(scoring, Mapping):
        score = call_scorer(scoring, estimator, data, caller)
        named = score if isinstance(score, Mapping) else {SINGLE: score}
    else:
        named = {n: call_scorer(one, estimator, data, caller) for n, one in scoring.items()}
    return {name: float(score) for name, score in named.items()}


class Recalled:
    """A fitted estimator that predicts once, and recalls rows of that for resampled samples."""

    def __init__(self, estimator, X):
        self._estimator, self._X = estimator, X
        self._known: dict[str, np.ndarray] = {}
        self.sample, self.rows = None, None  # the samples at hand, and which rows of X they are

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__sklearn_tags__":
            raise AttributeError(name)  # copies ask before there is an estimator
        found = getattr(self._estimator, name)
        if name not in ("predict", "predict_proba", "decision_function"):
            return found

        @functools.wraps(found)  # scorers ask for its name
        def recall(X):
            if X is not self.sample:
                return found(X)
            if name not in self._known:
                self._known[name] = found(self._X)
            return self._known[name][self.rows]

        return recall


def resampled_scores(
    scoring: Scoring,
    name: str,
    estimators: list,
    data: Data,
    resamples: Iterable[np.ndarray],
    caller: str,
) -> np.ndarray:
    """Return one score of each estimator on each resample, (n_estimators, n_resamples).

    It is NaN where a resample lacks what the score needs, a class for example.
    """
    scorer = {name: scoring[name]} if isinstance(scoring, Mapping) else scoring
    recalled = [Recalled(one, data.X) for one in estimators]
    columns = []
    for rows in resamples:
        scores = np.full(len(estimators), np.nan)
        sample = take_rows(data, rows)
        for place, one in enumerate(recalled):
            one.sample, one.rows = sample.X, rows
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    scores[place] = score_by_name(scorer, one, sample, caller)[name]
                except ValueError:
                    continue
        columns.append(scores)
    return np.stack(columns, axis=1)
