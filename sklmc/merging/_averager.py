"""Train nets, align them, and keep their average."""

from __future__ import annotations

import warnings
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.base import is_classifier

from sklmc._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _safe_indexing,
    check_random_state,
)
from sklmc._validation import check_weights
from sklmc.estimators import DeepEnsemble
from sklmc.estimators._seeds import resolve_seed
from sklmc.exceptions import MergeWarning
from sklmc.merging._holdout import check_rows, split_rows
from sklmc.merging._merge import ALIGNERS, align_models, merge_views
from sklmc.merging._repair import METHODS
from sklmc.merging._report import MergeReport
from sklmc.merging._single import SingleNet, check_net
from sklmc.models import average_states, view


class WeightAverager(SingleNet):
    """Train nets that differ by seed only, align them, and keep one: their average.

    The members are those of a :class:`DeepEnsemble`. Each is re-based onto the first by a
    permutation of its hidden units, which leaves its function unchanged; then the weights are
    averaged and the average is repaired. The result costs as much as a single net, and
    ``merge_report_`` says how it compares with its parts.

    Parameters
    ----------
    estimator : NetClassifier, NetRegressor or another skorch net
        The net to train; not a Pipeline (put the WeightAverager into the Pipeline).
    n_estimators : int, default=2
        Number of members.
    aligner : {"weight"}, aligner object or None, default="weight"
        How the members are aligned with the first one: a method of
        :class:`~sklmc.PermutationAligner`, an aligner with its own settings (it is cloned), or
        None to average the members as they are.
    weights : array-like of shape (n_estimators,), default=None
        Weights of the mean, not negative; scaled to sum to one. None means equal weights.
    repair : {"auto", "batch_norm", "refit", "renormalize"} or None, default="auto"
        What follows the average, on the samples that the members were trained on; see
        :func:`sklmc.merging.repair`.
    validation_fraction : float or None, default=0.1
        Part of the samples (at least one) kept from training, for ``merge_report_``. Classes
        keep their shares, and the last sample of a class is never taken from training. None
        trains on everything; the report is then measured on the training samples and flatters
        them.
    n_jobs : int, default=None
        Members trained at the same time. None means 1 unless in a joblib context, -1 all
        processors. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Where the seeds of the members and the validation part come from.
    verbose : int, default=0
        1 shows a bar over the members, 2 also a line for each.

    Attributes
    ----------
    estimator_ : skorch net
        The merged net.
    estimators_ : list of skorch nets
        The members, aligned; the first is the reference. Members whose training diverged are
        left out, with a warning.
    merge_report_ : DataFrame
        One row each for the members (``member_0``, ...), their ``ensemble`` (mean prediction),
        the ``naive`` average (members as they came from training), the ``aligned`` average
        (unless `aligner` is None) and the ``repaired`` one (if ``repair_`` is not None); the
        last row is ``estimator_``. Columns: ``model``, ``accuracy`` or ``r2`` (greater is better),
        ``loss`` (cross entropy in nats, or mean squared error), ``n_parameters``.
    repair_ : str or None
        The repair that made ``estimator_``; None where the plain mean was kept.
    validation_indices_ : ndarray of int
        Rows of X that were kept from training; may be empty.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the members know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the members know them.

    Warns
    -----
    MergeWarning
        If the merged net is clearly worse than its best member on the validation part: its
        score is lower, and among the samples on which the two differ (right or wrong; for
        regression, squared error) it loses so many that a fair coin would do so with a
        probability below 1 %. At least seven such samples are needed: tiny validation parts
        raise no alarm.

    See Also
    --------
    merge_models : The same for nets that are trained already.
    DeepEnsemble : Keeps all members and averages predictions.

    Notes
    -----
    ``merge_models(estimators_, X, y, aligner=None, ...)`` on the training rows gives the same net
    as ``estimator_``, bit by bit.

    Nets trained on the same data seldom merge into one that is better than the best of them;
    narrow and deep nets lose most. Widen the net (``module__width``), or look at the report.

    References
    ----------
    .. [1] Ainsworth, Hayase, Srinivasa, "Git Re-Basin: merging models modulo permutation
       symmetries", ICLR 2023.
    .. [2] Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
       improves accuracy without increasing inference time", ICML 2022.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier, WeightAverager
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=64, max_epochs=10)
    >>> averager = WeightAverager(net, n_estimators=2, random_state=0).fit(X, y)
    >>> bool(averager.score(X, y) > 0.8)
    True
    >>> averager.merge_report_["model"].tolist()
    ['member_0', 'member_1', 'ensemble', 'naive', 'aligned', 'repaired']
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "aligner": [StrOptions(set(ALIGNERS)), HasMethods(["fit", "transform"]), None],
        "weights": ["array-like", None],
        "repair": [StrOptions(set(METHODS)), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        n_estimators=2,
        *,
        aligner="weight",
        weights=None,
        repair="auto",
        validation_fraction=0.1,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.aligner = aligner
        self.weights = weights
        self.repair = repair
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y):
        """Train the members, align them, average them, and compare the result with them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it: array, list, DataFrame or torch tensor.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values.

        Returns
        -------
        self
            The fitted averager.
        """
        self._validate_params()
        weights = check_weights(self.weights, self.n_estimators, "WeightAverager")
        check_net(self.estimator, "WeightAverager")
        X, y = check_rows(X, y, "WeightAverager")
        seed = resolve_seed(self.random_state)
        train, held_out = split_rows(
            y, self.validation_fraction, is_classifier(self.estimator), check_random_state(seed)
        )
        X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
        ensemble = DeepEnsemble(
            self.estimator,
            self.n_estimators,
            n_jobs=self.n_jobs,
            random_state=seed,
            verbose=self.verbose,
        ).fit(X_train, y_train)
        weights = _finite_weights(weights, ensemble.diverged_)
        members = [net for i, net in enumerate(ensemble.estimators_) if i not in ensemble.diverged_]

        aligned = align_models(members, self.aligner, X_train, y_train)
        views = [view(net, caller="WeightAverager", name="estimator") for net in aligned]
        views[0].check_logits()
        self.estimator_, self.repair_ = merge_views(
            views,
            views[0].to_input(X_train),
            views[0].to_target(y_train),
            weights,
            self.repair,
        )
        self.estimators_ = aligned
        self.validation_indices_ = held_out
        judged = held_out if len(held_out) else train
        self._report(members, weights, _safe_indexing(X, judged), _safe_indexing(y, judged))
        self._remember_features()
        return self

    def _report(self, members: list, weights: np.ndarray, X, y) -> None:
        """Compare the merged net with its parts, and warn where it lost."""
        views = [view(net, caller="WeightAverager") for net in members]
        report = MergeReport(views[0], views[0].to_input(X), views[0].to_target(y))
        states = [one.state for one in views]
        report.add_members(states)
        plain = average_states(states, weights)
        report.add_state("naive", plain)
        if self.aligner is not None:
            states = [view(net, caller="WeightAverager").state for net in self.estimators_]
            plain = average_states(states, weights)
            report.add_state("aligned", plain)
        if self.repair_ is not None:
            report.add_state("repaired", view(self.estimator_, caller="WeightAverager").state)
        self._report_rows = report.rows
        lost = report.verdict()
        if lost is not None:
            warnings.warn(
                f"WeightAverager: the merged net is worse than its best part ({lost}). See "
                "merge_report_; a wider net, or another 'aligner' or 'repair', may help, and "
                "DeepEnsemble keeps the members apart.",
                MergeWarning,
                stacklevel=3,
            )

    @property
    def merge_report_(self) -> pd.DataFrame:
        """Scores of the merged net beside those of its parts."""
        if not hasattr(self, "_report_rows"):  # a frame would not survive skops
            raise AttributeError("WeightAverager has no 'merge_report_' before it is fitted.")
        return pd.DataFrame(self._report_rows)


def _finite_weights(weights: np.ndarray, diverged: list[int]) -> np.ndarray:
    """Return the weights of the members that are left."""
    left = np.delete(weights, diverged)
    if left.sum() <= 0:
        raise ValueError(
            f"WeightAverager: all weight lies on members that diverged ({diverged!r}); lower "
            "'lr', scale X, or change 'weights'."
        )
    return left / left.sum()
