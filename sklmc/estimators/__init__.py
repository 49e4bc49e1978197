"""A net, or many, as a scikit-learn estimator."""

from sklmc.estimators._classifier import NetClassifier
from sklmc.estimators._ensemble import DeepEnsemble
from sklmc.estimators._grid import ModelGrid
from sklmc.estimators._regressor import NetRegressor

__all__ = ["DeepEnsemble", "ModelGrid", "NetClassifier", "NetRegressor"]
