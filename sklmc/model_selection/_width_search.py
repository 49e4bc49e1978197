"""A search that widens nets until they are connected."""

from __future__ import annotations

import os
import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.utils import column_or_1d
from skorch import NeuralNet
from tqdm.auto import tqdm

from sklmc._sklearn import BaseSearchCV, Interval, check_is_fitted, get_tags
from sklmc._validation import ChecksParameters
from sklmc.connectivity import LMCScorer
from sklmc.estimators._cache_dir import check_cache_seed
from sklmc.estimators._members import inner_net
from sklmc.estimators._net_data import readable
from sklmc.estimators._points import set_checked
from sklmc.exceptions import SklmcWarning
from sklmc.models import STAYS_GOOD, open_folder

_BARRIERS = ("neg_calibrated_barrier", "neg_barrier")


class _Widening(BaseSearchCV):
    """The search itself, with scorer and metric resolved: one width after the other."""

    def __init__(self, estimator, widths, stops, keys, **options):
        super().__init__(estimator, **options)
        self.widths, self.stops, self.keys = widths, stops, keys
        self.lost: set[int] = set()  # results of folds without scores, by identity

    def _run_search(self, evaluate_candidates):
        """Evaluate widths until one is enough."""
        for params in self.widths:
            if self.stops(evaluate_candidates([params])):
                break

    def _format_results(self, candidate_params, n_splits, out, more_results=None):
        """Give widths that could not be scored the scores that the others have, as NaN.

        A net that could not be stored is no verdict on its width: that is raised.
        """
        for one in out:
            if STAYS_GOOD in (one.get("fit_error") or ""):
                raise OSError(
                    "WidthSearchCV: a net could not be stored in 'cache_dir'; make room and fit "
                    f"again: {one['fit_error'].strip()}"
                )
        self.lost.update(id(one) for one in out if not isinstance(one["test_scores"], dict))
        scored = next((one for one in out if id(one) not in self.lost), {})
        for part in ("test_scores", "train_scores"):
            keys = list(scored.get(part, self.keys))
            for one in out:
                if id(one) in self.lost and part in one:
                    one[part] = dict.fromkeys(keys, self.error_score)
        return super()._format_results(candidate_params, n_splits, out, more_results)


class WidthSearchCV(ChecksParameters, BaseSearchCV):
    """Widen nets until they are connected, and have learned.

    Trains populations at growing widths, by cross-validation, until the barrier between their
    members is at most `target_barrier`. Nets that have learned nothing are connected too: a width
    counts only if its members are clearly better than a constant prediction.

    Parameters
    ----------
    estimator : estimator with ``estimators_`` after fit
        A population, ``DeepEnsemble(NetClassifier())`` for example.
    param_name : str, default=None
        The parameter of `estimator` that is widened. None means ``module__width`` of the net in
        it: "estimator__module__width" for a DeepEnsemble.
    start : int, default=8
        First width.
    factor : float, default=2
        By how much each width is larger than the one before; above 1.
    max_width : int, default=1024
        Widths beyond are not tried.
    target_barrier : float, default=0.01
        Largest barrier that counts as connected, in the unit of the scorer (nats; at least 0).
    min_skill : float, default=0.25
        Smallest skill that counts as having learned: the share of a constant prediction's error
        that the members avoid on average, in [0, 1]. For classifiers
        ``1 - error / error_constant``, the constant being the most frequent class; for regressors
        R2. Lower it where labels are noisy.
    scoring : callable, default=None
        Called as ``scoring(estimator, X, y)``, returns a dict with ``neg_calibrated_barrier`` or
        ``neg_barrier`` (the first that is there decides) and ``accuracy`` or ``r2``. None means
        ``LMCScorer(aligner="weight", calibration="crossfit")`` for classifiers (no calibration
        for regressors): the barrier after alignment, calibrated.
    refit : str, callable or bool, default="merged_accuracy"
        Which of the scores chooses ``best_estimator_`` among the widths that were tried, trained
        again on all data; False leaves it out. "merged_accuracy" stands for "merged_r2" where the
        nets are regressors.
    cv : int, cross-validation generator or iterable, default=None
        As in scikit-learn's searches; None means five folds.
    cache_dir : str or path, default=None
        Folder where every finished net of every width and fold is stored at once, and from where
        a search that was cut off, even killed, goes on: it ends with the same bytes as an
        undisturbed one. It is set as the ``cache_dir`` of the DeepEnsemble in `estimator`, whose
        ``random_state`` must be an int. Scores are computed again.
    error_score : "raise" or float, default=np.nan
        What a fold counts whose training or scoring fails; such a width is never connected.
    return_train_score : bool, default=False
        Whether scores on the training parts are computed too.
    n_jobs : int, default=None
        Folds evaluated at the same time.
    verbose : int, default=0
        1 shows a bar over widths with the barrier measured last, 2 also a line for each.

    Attributes
    ----------
    smallest_width_ : int or None
        The first width that is connected and has learned; None, with a warning, if none was.
    cv_results_ : dict of ndarrays
        As in scikit-learn's searches, one entry per width tried.
    best_estimator_, best_params_, best_score_, best_index_ : object
        The best by `refit`, as in scikit-learn's searches.
    constant_score_ : float
        Accuracy (or R2) of the constant prediction.

    See Also
    --------
    sklmc.LMCScorer : What measures the barrier.
    sklmc.ModelGrid : All widths of a list, whatever their barrier.

    Notes
    -----
    Each width costs ``cv * n_estimators`` nets; widening stops at the first that is enough.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import DeepEnsemble, NetClassifier, WidthSearchCV
    >>> X, y = make_moons(120, noise=0.1, random_state=0)
    >>> net = NetClassifier(max_epochs=20, lr=0.05)
    >>> search = WidthSearchCV(DeepEnsemble(net, 2, random_state=0), start=2, max_width=8,
    ...                        target_barrier=0.5, cv=2).fit(X, y)
    >>> search.smallest_width_ in (2, 4, 8)
    True
    """

    _parameter_constraints: dict = {
        **BaseSearchCV._parameter_constraints,
        "param_name": [str, None],
        "start": [Interval(Integral, 1, None, closed="left")],
        "factor": [Interval(Real, 1, None, closed="neither")],
        "max_width": [Interval(Integral, 1, None, closed="left")],
        "target_barrier": [Interval(Real, 0, None, closed="left")],
        "min_skill": [Interval(Real, 0, 1, closed="both")],
        "scoring": [callable, None],
        "cache_dir": [str, os.PathLike, None],
    }
    _parameter_constraints.pop("pre_dispatch")

    def __init__(
        self,
        estimator,
        *,
        param_name=None,
        start=8,
        factor=2,
        max_width=1024,
        target_barrier=0.01,
        min_skill=0.25,
        scoring=None,
        refit="merged_accuracy",
        cv=None,
        cache_dir=None,
        error_score=np.nan,
        return_train_score=False,
        n_jobs=None,
        verbose=0,
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            refit=refit,
            cv=cv,
            n_jobs=n_jobs,
            error_score=error_score,
            return_train_score=return_train_score,
            verbose=verbose,
        )
        del self.pre_dispatch  # no parameter here
        self.param_name = param_name
        self.start = start
        self.factor = factor
        self.max_width = max_width
        self.target_barrier = target_barrier
        self.min_skill = min_skill
        self.cache_dir = cache_dir

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.target_tags.multi_output = inner.target_tags.multi_output
        return tags

    def fit(self, X, y, **params):
        """Widen until the nets are connected and have learned.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As `estimator` takes it.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values.
        **params : object
            Handed on as in scikit-learn's searches.

        Returns
        -------
        self
            The search, fitted.
        """
        self._validate_params()
        if self.start > self.max_width:
            raise ValueError(
                f"WidthSearchCV: 'start' is larger than 'max_width', got {self.start!r} and "
                f"{self.max_width!r}."
            )
        X, y = readable(X, "WidthSearchCV", "X"), readable(y, "WidthSearchCV", "y")
        if is_classifier(self.estimator) and y is not None:
            y = column_or_1d(y, warn=True)
        scoring = self.scoring
        if scoring is None:
            calibration = "crossfit" if is_classifier(self.estimator) else None
            scoring = LMCScorer(aligner="weight", calibration=calibration, error_score=np.nan)
        widths, name = self._widths(), self._param_name()
        try:
            set_checked(self.estimator, {name: widths[0]}, "WidthSearchCV")
        except ValueError as error:
            raise ValueError(f"{error} 'param_name' names what is widened.") from None
        with tqdm(total=len(widths), desc="WidthSearchCV", disable=self.verbose < 1) as bar:
            search = _Widening(
                self._population(),
                [{name: width} for width in widths],
                lambda results: self._look(results, bar),
                ["neg_barrier", self._score_name(), self._refit_key()],
                scoring=scoring,
                refit=self._refit_key(),
                cv=self.cv,
                n_jobs=self.n_jobs,
                error_score=self.error_score,
                return_train_score=self.return_train_score,
            )
            self.constant_score_ = _constant_score(y) if is_classifier(self.estimator) else 0.0
            search.fit(X, y, **params)
        for name in [name for name in vars(self) if name.endswith("_")]:
            if name != "constant_score_":
                delattr(self, name)
        learned = {name: value for name, value in vars(search).items() if name.endswith("_")}
        vars(self).update(learned)
        reached = self._reached(self.cv_results_)
        self.smallest_width_ = widths[len(reached) - 1] if reached[-1][2] else None
        if self.smallest_width_ is None:
            self._warn(widths, reached)
        return self

    def score(self, X, y) -> float:
        """Return the score that `refit` names, of the best estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values.

        Returns
        -------
        float
            Greater is better.
        """
        check_is_fitted(self, "best_estimator_")
        scores = self.scorer_(self.best_estimator_, X, y)
        return scores[self._refit_key()] if isinstance(self._refit_key(), str) else scores

    def _population(self):
        """Return what is trained: `estimator`, or a clone that keeps its nets."""
        if self.cache_dir is None:
            return self.estimator
        open_folder(self.cache_dir, "WidthSearchCV")
        params = self.estimator.get_params(deep=True)
        names = [name for name in params if name.split("__")[-1] == "cache_dir"]
        if not names:
            raise ValueError(
                "WidthSearchCV: 'cache_dir' needs an 'estimator' that can store its nets (a "
                f"DeepEnsemble, or a Pipeline that ends in one), got {self.estimator!r}; set it "
                "to None."
            )
        for name in names:
            seed = params.get(name.removesuffix("cache_dir") + "random_state")
            check_cache_seed(seed, "WidthSearchCV, 'estimator'")
        return clone(self.estimator).set_params(**dict.fromkeys(names, self.cache_dir))

    def _param_name(self) -> str:
        """Return the parameter that is widened."""
        population = inner_net(self.estimator)
        if isinstance(population, NeuralNet):
            raise TypeError(
                "WidthSearchCV: 'estimator' must be a population of nets, between which there are "
                f"barriers, got {type(self.estimator).__name__} of one {type(population).__name__};"
                " pass a DeepEnsemble of it."
            )
        if self.param_name is not None:
            return self.param_name
        params = self.estimator.get_params(deep=True)
        found = [name for name, part in params.items() if isinstance(part, NeuralNet)]
        if len(found) != 1:
            raise ValueError(
                f"WidthSearchCV: 'param_name' must name the parameter that is widened, since "
                f"'estimator' holds {len(found)} nets."
            )
        return f"{found[0]}__module__width"

    def _widths(self) -> list[int]:
        """Return the widths that may be tried, in order."""
        widths, width = [], float(self.start)
        while round(width) <= self.max_width:
            if not widths or round(width) > widths[-1]:
                widths.append(round(width))
            width *= self.factor
        return widths

    def _score_name(self) -> str:
        """Return the score that skill is read from."""
        return "accuracy" if is_classifier(self.estimator) else "r2"

    def _refit_key(self):
        """Return the score that chooses the best width."""
        if self.refit == "merged_accuracy" and not is_classifier(self.estimator):
            return "merged_r2"
        return self.refit

    def _look(self, results: dict, bar) -> bool:
        """Show what the last width reached, and say whether it is enough."""
        barrier, skill, enough = self._reached(results)[-1]
        text = f"barrier {barrier:.4f}, skill {skill:.3f}"
        if self.verbose > 1:
            tqdm.write(f"WidthSearchCV {results['params'][-1]}: {text}")
        bar.set_postfix_str(text)
        bar.update()
        return enough

    def _reached(self, results: dict) -> list[tuple[float, float, bool]]:
        """Return barrier, skill and whether both are enough, of every width tried."""
        score = self._score_name()
        barrier = next((k for k in _BARRIERS if f"mean_test_{k}" in results), None)
        if barrier is None or f"mean_test_{score}" not in results:
            raise ValueError(
                f"WidthSearchCV: 'scoring' must return a dict with {_BARRIERS[1]!r} or "
                f"{_BARRIERS[0]!r}, and {score!r}; use an LMCScorer(output='all')."
            )
        best = self.constant_score_
        reached = []
        for negative, mean in zip(results[f"mean_test_{barrier}"], results[f"mean_test_{score}"]):
            skill = (mean - best) / (1.0 - best) if best < 1 else 0.0
            enough = -negative <= self.target_barrier and skill >= self.min_skill
            reached.append((float(0.0 - negative), float(skill), bool(enough)))
        return reached

    def _warn(self, widths: list[int], reached: list[tuple[float, float, bool]]) -> None:
        """Say what was reached where nothing was enough."""
        text = "; ".join(
            f"{width}: barrier {barrier:.4g}, skill {skill:.3g}"
            for width, (barrier, skill, _) in zip(widths, reached)
        )
        warnings.warn(
            f"WidthSearchCV: no width up to {widths[-1]} has a barrier of at most "
            f"{self.target_barrier!r} and a skill of at least {self.min_skill!r} ({text}). Raise "
            "'max_width', train longer, or allow more.",
            SklmcWarning,
            stacklevel=3,
        )


def _constant_score(y) -> float:
    """Return the share of the most frequent class."""
    if y is None or len(y) == 0:
        given = "None" if y is None else "empty"
        raise ValueError(f"WidthSearchCV requires y to be passed, but the target y is {given}.")
    _, counts = np.unique(y, return_counts=True)
    return float(counts.max() / counts.sum())
