"""Linear mode connectivity modulo permutation, for people with scikit-learn habits."""

from sklmc.alignment import PermutationAligner
from sklmc.estimators import DeepEnsemble, NetClassifier, NetRegressor
from sklmc.models import average_models, interpolate_models

__version__ = "0.1.0.dev0"

__all__ = [
    "DeepEnsemble",
    "NetClassifier",
    "NetRegressor",
    "PermutationAligner",
    "average_models",
    "interpolate_models",
]
