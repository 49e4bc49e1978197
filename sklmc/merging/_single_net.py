"""What all estimators share whose fit leaves a single net."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from skorch import NeuralNet

from sklmc._sklearn import available_if, check_is_fitted, get_tags
from sklmc.estimators._arguments import check_module
from sklmc.estimators._data import readable


def _has_probabilities(outer) -> bool:
    """Say whether the net is a classifier with predict_proba; name the inner if not."""
    inner = outer.estimator_ if hasattr(outer, "estimator_") else outer._template()
    return is_classifier(inner) and hasattr(inner, "predict_proba")


class SingleNet(MetaEstimatorMixin, BaseEstimator):
    """Base of estimators that train nets and keep one of them, ``estimator_``."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._template())
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        return tags

    def _template(self):
        """Return what the net will be like, before there is one."""
        return self.estimator

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the probabilities."""
        if not hasattr(self, "estimator_"):
            raise AttributeError(f"{type(self).__name__} knows no 'classes_' before it is fitted.")
        return self.estimator_.classes_

    @available_if(_has_probabilities)
    def predict_proba(self, X) -> np.ndarray:
        """Return the net's probabilities.

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
        return self._class_probabilities(X)

    def predict(self, X) -> np.ndarray:
        """Return the net's labels or values.

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
        return self.estimator_.predict(X)

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
        return metric(y, self.predict(X), sample_weight=sample_weight)

    def _class_probabilities(self, X) -> np.ndarray:
        """Return the probabilities of a fitted classifier."""
        return self.estimator_.predict_proba(X)

    def _remember_features(self) -> None:
        """Take over what the net knows of its columns."""
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))


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
