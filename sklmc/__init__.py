"""Linear mode connectivity modulo permutation, for people with scikit-learn habits."""

from sklmc.alignment import MultiAligner, PermutationAligner
from sklmc.connectivity import LMCScorer, PairwiseScore, PathScore
from sklmc.estimators import DeepEnsemble, ModelGrid, NetClassifier, NetRegressor
from sklmc.merging import GreedySoup, SWAEnsembler, WeightAverager, merge_models
from sklmc.model_selection import WidthSearchCV
from sklmc.models import average_models, interpolate_models
from sklmc.plotting import (
    DecisionRegionDisplay,
    FeatureConnectivityDisplay,
    FeatureSimilarityDisplay,
    PathDisplay,
    PreactivationDisplay,
    SymmetryDisplay,
    WidthCurveDisplay,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "DecisionRegionDisplay",
    "DeepEnsemble",
    "FeatureConnectivityDisplay",
    "FeatureSimilarityDisplay",
    "GreedySoup",
    "LMCScorer",
    "ModelGrid",
    "MultiAligner",
    "NetClassifier",
    "NetRegressor",
    "PairwiseScore",
    "PathDisplay",
    "PathScore",
    "PermutationAligner",
    "PreactivationDisplay",
    "SWAEnsembler",
    "SymmetryDisplay",
    "WeightAverager",
    "WidthCurveDisplay",
    "WidthSearchCV",
    "average_models",
    "interpolate_models",
    "merge_models",
]
