"""Fitted nets that predict together."""

from __future__ import annotations

import numpy as np

from sklmc._sklearn import available_if
from sklmc.estimators._wrapper import NetWrapper, has_probabilities


class GivenEnsemble(NetWrapper):
    """Fitted nets that predict with their mean, as scorers see them.

    `shares` says how much each has to say of each class, (n_nets, n_classes); None: all as much.
    """

    def __init__(self, nets, shares=None):
        self.nets = nets
        self.shares = shares

    def fit(self, X, y=None):
        """Do nothing: the nets are fitted."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _template(self):
        return self.nets[0]

    def _fitted_net(self):
        return self.nets[0]

    def _predicting_nets(self) -> list:
        return self.nets

    @available_if(has_probabilities)
    def predict_proba(self, X) -> np.ndarray:
        """Return the mean probabilities; of each class, of the nets that have seen it."""
        if self.shares is None:
            return super().predict_proba(X)
        found = np.stack([net.predict_proba(X) for net in self.nets])
        mean = np.sum(found * self.shares.numpy()[:, None], axis=0)
        return mean / mean.sum(axis=1, keepdims=True)
