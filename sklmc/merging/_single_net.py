"""What all estimators share whose fit leaves a single net."""

from __future__ import annotations

import numpy as np
from skorch import NeuralNet

from sklmc._sklearn import check_is_fitted
from sklmc.estimators._arguments import check_module
from sklmc.estimators._wrapper import NetWrapper


class SingleNet(NetWrapper):
    """Base of estimators that train nets and keep one of them, ``estimator_``."""

    def _fitted_net(self):
        """Return the one net; None before fit."""
        return getattr(self, "estimator_", None)

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

    def _class_probabilities(self, X) -> np.ndarray:
        """Return the probabilities of a fitted classifier."""
        return self.estimator_.predict_proba(X)


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
