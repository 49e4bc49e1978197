"""What estimators share that train nets and predict with them: one net, or many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from skorch import NeuralNet

from sklmc._sklearn import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    _num_samples,
    available_if,
    check_is_fitted,
    get_tags,
)
from sklmc._validation import ChecksParameters, check_sample_weight
from sklmc.estimators._net_data import readable
from sklmc.estimators._parameters import check_module

_FEATURES = ("n_features_in_", "feature_names_in_")

# of what trains populations: DeepEnsemble and ModelGrid
POPULATION_CONSTRAINTS: dict = {
    "estimator": [HasMethods(["fit", "predict"])],
    "n_estimators": [Interval(Integral, 1, None, closed="left")],
    "vectorize": [StrOptions({"auto"}), Options(bool, {True, False})],
    "cache_dir": [str, os.PathLike, None],
    "n_jobs": [Integral, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def has_probabilities(outer) -> bool:
    """Say whether the nets are classifiers with predict_proba; name the inner if not."""
    inner = outer._fitted_net()
    inner = outer._template() if inner is None else inner
    return is_classifier(inner) and hasattr(inner, "predict_proba")


class NetWrapper(ChecksParameters, MetaEstimatorMixin, BaseEstimator):
    """Base of estimators that hold fitted nets and are what these are, classifier or regressor.

    Unless a class says otherwise, one net predicts, ``estimator_``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._template())
        for name in ("estimator_type", "classifier_tags", "regressor_tags"):
            setattr(tags, name, getattr(inner, name))
        tags.target_tags, tags.input_tags = inner.target_tags, inner.input_tags
        return tags

    def _template(self):
        """Return what the nets will be like, before there is one."""
        return self.estimator

    def _fitted_net(self):
        """Return a net that knows what all know of the data; None before fit."""
        return getattr(self, "estimator_", None)

    def _predicting_nets(self) -> list:
        """Return the fitted nets that predict; several do with their mean."""
        return [self.estimator_]

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the probabilities."""
        net = self._fitted_net()
        if net is None:
            raise AttributeError(f"{type(self).__name__} knows no 'classes_' before it is fitted.")
        return net.classes_

    @available_if(has_probabilities)
    def predict_proba(self, X) -> np.ndarray:
        """Return the probabilities of the classes; the mean over the nets where many predict.

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
        return _mean(net.predict_proba(X) for net in self._predicting_nets())

    def predict(self, X) -> np.ndarray:
        """Return labels or values; of many nets by their mean probabilities or predictions.

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
        nets = self._predicting_nets()
        if len(nets) == 1:
            return nets[0].predict(X)
        if not is_classifier(nets[0]):
            return _mean(net.predict(X) for net in nets)
        if has_probabilities(self):
            scores = self.predict_proba(X)
        else:
            scores = _mean(net.predict(X)[:, None] == self.classes_ for net in nets)
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
        y = readable(y, type(self).__name__, "y")
        sample_weight = check_sample_weight(sample_weight, _num_samples(y), type(self).__name__)
        return metric(y, self.predict(X), sample_weight=sample_weight)

    def _remember_features(self) -> None:
        """Take over what the nets know of their columns."""
        copy_features(self._fitted_net(), self)


def copy_features(net, outer, names: Sequence[str] = _FEATURES) -> None:
    """Let an estimator know what a fitted net knows of the columns of X, and nothing older."""
    for name in names:
        vars(outer).pop(name, None)
        if hasattr(net, name):
            setattr(outer, name, getattr(net, name))


def check_net(estimator, caller: str) -> None:
    """Refuse what is no net: only nets have weights to average."""
    if not isinstance(estimator, NeuralNet):
        hint = (
            f"put the {caller} into the Pipeline"
            if hasattr(estimator, "steps")
            else "use a NetClassifier or a NetRegressor"
        )
        raise TypeError(f"{caller}: 'estimator' must be a skorch net, got {estimator!r}; {hint}.")
    check_module(estimator.module, caller)


def _mean(predictions: Iterable[np.ndarray]) -> np.ndarray:
    """Average arrays in float64, one after the other; the result has their own float type."""
    total, count = np.zeros(()), 0
    for prediction in predictions:
        total, count = total + prediction.astype(np.float64), count + 1
    dtype = prediction.dtype if prediction.dtype.kind == "f" else np.float64
    return (total / count).astype(dtype, copy=False)
