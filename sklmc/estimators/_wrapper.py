"""What estimators share that train nets and predict with them: one net, or many."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier
from sklearn.metrics import accuracy_score, r2_score

from sklmc._sklearn import available_if, check_is_fitted, get_tags
from sklmc.estimators._data import readable


def has_probabilities(outer) -> bool:
    """Say whether the nets are classifiers with predict_proba; name the inner if not."""
    inner = outer._fitted_net()
    inner = outer._template() if inner is None else inner
    return is_classifier(inner) and hasattr(inner, "predict_proba")


class NetWrapper(MetaEstimatorMixin, BaseEstimator):
    """Base of estimators that hold fitted nets and are what these are, classifier or regressor."""

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
        """Return what the nets will be like, before there is one."""
        return self.estimator

    def _fitted_net(self):
        """Return a net that knows what all know of the data; None before fit."""
        raise NotImplementedError

    def _class_probabilities(self, X) -> np.ndarray:
        """Return the probabilities of fitted classifiers."""
        raise NotImplementedError

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
        return self._class_probabilities(X)

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

    def _remember_features(self) -> None:
        """Take over what the nets know of their columns."""
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self._fitted_net(), name):
                setattr(self, name, getattr(self._fitted_net(), name))
