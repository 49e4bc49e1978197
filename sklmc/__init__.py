"""Linear mode connectivity modulo permutation, for people with scikit-learn habits."""

from sklmc._persistence import load_model, save_model
from sklmc._versions import show_versions
from sklmc.alignment import MultiAligner, PermutationAligner
from sklmc.connectivity import LMCScorer, PairwiseScore, PathScore, loss_plane
from sklmc.estimators import DeepEnsemble, ModelGrid, NetClassifier, NetRegressor
from sklmc.features import explain_barrier
from sklmc.merging import (
    EnsembleMerger,
    GreedySoup,
    SWAEnsembler,
    WeightAverager,
    average_models,
    interpolate_models,
    merge_models,
    repair,
)
from sklmc.model_selection import WidthSearchCV
from sklmc.models import select_output
from sklmc.plotting import (
    BarrierMatrixDisplay,
    ClusterDisplay,
    DecisionRegionDisplay,
    FeatureConnectivityDisplay,
    FeatureSimilarityDisplay,
    LossPlaneDisplay,
    PathDisplay,
    PreactivationDisplay,
    SymmetryDisplay,
    WidthCurveDisplay,
)
from sklmc.symmetry import Permutation, discover_symmetry

__version__ = "0.1.0.dev0"

__all__ = [
    "BarrierMatrixDisplay",
    "ClusterDisplay",
    "DecisionRegionDisplay",
    "DeepEnsemble",
    "EnsembleMerger",
    "FeatureConnectivityDisplay",
    "FeatureSimilarityDisplay",
    "GreedySoup",
    "LMCScorer",
    "LossPlaneDisplay",
    "ModelGrid",
    "MultiAligner",
    "NetClassifier",
    "NetRegressor",
    "PairwiseScore",
    "PathDisplay",
    "PathScore",
    "Permutation",
    "PermutationAligner",
    "PreactivationDisplay",
    "SWAEnsembler",
    "SymmetryDisplay",
    "WeightAverager",
    "WidthCurveDisplay",
    "WidthSearchCV",
    "average_models",
    "discover_symmetry",
    "explain_barrier",
    "interpolate_models",
    "load_model",
    "loss_plane",
    "merge_models",
    "repair",
    "save_model",
    "select_output",
    "show_versions",
]
