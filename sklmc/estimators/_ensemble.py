"""Many nets that differ by seed only."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import nn

from sklmc._sklearn import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    available_if,
    check_is_fitted,
    delayed,
    get_tags,
)
from sklmc._torch import seeded, single_thread
from sklmc.estimators._arguments import check_module
from sklmc.estimators._progress import run_parallel
from sklmc.estimators._seeds import draw_seeds
from sklmc.exceptions import DivergedMemberWarning, NonFiniteError


def _has_probabilities(ensemble) -> bool:
    """Say whether the members are classifiers with predict_proba; name the inner if not."""
    inner = ensemble.estimators_[0] if hasattr(ensemble, "estimators_") else ensemble.estimator
    return is_classifier(inner) and hasattr(inner, "predict_proba")


class DeepEnsemble(MetaEstimatorMixin, BaseEstimator):
    """Train nets that differ by seed only, and predict with their mean.

    Each member is a clone of `estimator` with a seed of its own, trained on all of the data:
    initial weights and order of the samples differ, nothing else [1]_. The members stand in
    ``estimators_`` as ordinary fitted nets.

    Parameters
    ----------
    estimator : estimator
        NetClassifier, NetRegressor, a Pipeline that ends in one, or any other classifier or
        regressor with a ``random_state``. A plain skorch net has none: it is trained while the
        generators of torch, numpy and random are seeded for it (and put back afterwards).
    n_estimators : int, default=10
        Number of members.
    vectorize : {"auto", False}, default="auto"
        How the members are trained: one by one, for both values.
    n_jobs : int, default=None
        Members trained at the same time. None means 1 unless in a joblib context, -1 all
        processors.
    random_state : int, RandomState instance or None, default=None
        Where the seeds of the members come from, drawn in their order: a larger ensemble begins
        with the members of a smaller one.
    verbose : int, default=0
        1 shows a bar over the members, 2 also a line for each. The members are silent.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted members.
    seeds_ : list of int
        The ``random_state`` of each member.
    diverged_ : list of int
        Members whose weights are not finite; predictions leave them out.
    classes_ : ndarray of shape (n_classes,)
        The labels, for classifiers.
    n_features_in_ : int
        Number of features, where the members know it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where the members know them.

    See Also
    --------
    NetClassifier : The usual `estimator`.
    NetRegressor : The usual `estimator` for regression.

    Notes
    -----
    Each member is trained on one thread, on numbers that depend on its seed alone: the members
    are the same for every `n_jobs` and every joblib backend.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty
       estimation using deep ensembles", 2017.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import DeepEnsemble, NetClassifier
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=8, max_epochs=5)
    >>> ensemble = DeepEnsemble(net, n_estimators=3, random_state=0).fit(X, y)
    >>> len(ensemble.estimators_)
    3
    >>> ensemble.predict_proba(X).shape
    (100, 2)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "vectorize": [StrOptions({"auto"}), Options(bool, {False})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        n_estimators=10,
        *,
        vectorize="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.vectorize = vectorize
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags

    def fit(self, X, y):
        """Train all members on the same data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As `estimator` takes it.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values.

        Returns
        -------
        self
            The fitted ensemble.
        """
        self._validate_params()
        settings = _member_settings(self.estimator)
        seeds = draw_seeds(self.random_state, self.n_estimators)
        guard = _needs_seeding(self.estimator)
        tasks = (
            delayed(_fit_member)(
                clone(self.estimator).set_params(
                    **{name: seed if name.endswith("random_state") else 0 for name in settings}
                ),
                X,
                y,
                index,
                seed if guard else None,
            )
            for index, seed in enumerate(seeds)
        )
        members = run_parallel(
            tasks, self.n_estimators, self.n_jobs, self.verbose, "DeepEnsemble", _last_loss
        )
        self.diverged_ = _report_diverged(members)
        self.estimators_ = members
        self.seeds_ = seeds
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(members[0], name):
                setattr(self, name, getattr(members[0], name))
        return self

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the probabilities."""
        if not hasattr(self, "estimators_"):
            raise AttributeError("DeepEnsemble knows no 'classes_' before it is fitted.")
        return self.estimators_[0].classes_

    def _finite_members(self) -> list:
        """Return the members that count in predictions."""
        diverged = set(self.diverged_)
        return [net for index, net in enumerate(self.estimators_) if index not in diverged]

    @available_if(_has_probabilities)
    def predict_proba(self, X) -> np.ndarray:
        """Return the mean of the members' probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        check_is_fitted(self)
        return _mean(net.predict_proba(X) for net in self._finite_members())

    def predict(self, X) -> np.ndarray:
        """Return the label with the largest mean probability, or the mean prediction.

        Classifiers without probabilities vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or predicted values.
        """
        check_is_fitted(self)
        members = self._finite_members()
        if not is_classifier(members[0]):
            return _mean(net.predict(X) for net in members)
        if _has_probabilities(self):
            scores = self.predict_proba(X)
        else:
            scores = _mean(net.predict(X)[:, None] == self.classes_ for net in members)
        return self.classes_[scores.argmax(axis=1)]

    def score(self, X, y, sample_weight=None) -> float:
        """Return accuracy (classifiers) or R2 (regressors); greater is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        float
            The score of ``predict(X)``.
        """
        metric = accuracy_score if is_classifier(self) else r2_score
        return metric(y, self.predict(X), sample_weight=sample_weight)


def _member_settings(estimator) -> list[str]:
    """Name the parameters that a member gets: seeds of all its parts, silence of its nets."""
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise TypeError(
            f"DeepEnsemble: 'estimator' must be a classifier or a regressor, got {estimator!r}."
        )
    params = estimator.get_params(deep=True)
    settings = [name for name in params if f"__{name}".endswith("__random_state")]
    for name, part in {"": estimator, **params}.items():
        if isinstance(part, NeuralNet):
            check_module(part.module, "DeepEnsemble")
            settings.append(f"{name}__verbose".removeprefix("__"))
    if not any(name.endswith("random_state") for name in settings):
        if not _needs_seeding(estimator):
            raise ValueError(
                f"DeepEnsemble: 'estimator' has no random_state, so that all members would be "
                f"equal, got {estimator!r}; use a NetClassifier or a NetRegressor."
            )
    return settings


def _needs_seeding(estimator) -> bool:
    """Say whether the net is a plain skorch net, whose only seeds are torch's global ones."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return isinstance(estimator, NeuralNet) and "random_state" not in estimator.get_params(
        deep=False
    )


def _fit_member(member, X, y, index: int, seed: int | None):
    """Train one member; with a seed, all global generators are seeded around it."""
    try:
        if seed is None:
            member.fit(X, y)
        else:
            with seeded(seed), single_thread():
                member.fit(X, y)
    except Exception as error:
        error.add_note(f"This happened in member {index} of a DeepEnsemble.")
        raise
    if getattr(_inner_net(member), "_interrupted", False):
        raise KeyboardInterrupt(f"interrupted in member {index} of a DeepEnsemble")
    return member


def _inner_net(member):
    """Return the net at the end of a member, or the member itself."""
    while isinstance(member, Pipeline):
        member = member.steps[-1][1]
    return member


def _last_loss(member) -> str:
    """Say what was measured last in training."""
    history = getattr(_inner_net(member), "history_", None)
    if not history or "train_loss" not in history[-1]:
        return ""
    return f"train_loss {history[-1, 'train_loss']:.4f}"


def _report_diverged(members: list) -> list[int]:
    """Return the members whose weights are not finite, with a warning; refuse if all are."""
    diverged = [index for index, member in enumerate(members) if not _is_finite(member)]
    if len(diverged) == len(members):
        raise NonFiniteError(
            f"DeepEnsemble: training diverged in all {len(members)} members: their weights are "
            "not finite. Lower 'lr' or scale X."
        )
    if diverged:
        warnings.warn(
            f"DeepEnsemble: training diverged in member{'s' * (len(diverged) > 1)} "
            f"{', '.join(map(str, diverged))} of {len(members)}: the weights are not finite. "
            "Predictions leave these members out; lower 'lr' or scale X to keep them.",
            DivergedMemberWarning,
            stacklevel=3,
        )
    return diverged


def _is_finite(member) -> bool:
    """Say whether all weights of a net are finite; what is no net passes."""
    module = getattr(_inner_net(member), "module_", None)
    if not isinstance(module, nn.Module):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values())


def _mean(predictions: Iterable[np.ndarray]) -> np.ndarray:
    """Average arrays in float64, one after the other; the result has their own float type."""
    total, count, dtype = None, 0, None
    for prediction in predictions:
        if total is None:
            total = np.zeros(prediction.shape)
            dtype = prediction.dtype if prediction.dtype.kind == "f" else total.dtype
        total += prediction
        count += 1
    return (total / count).astype(dtype, copy=False)
