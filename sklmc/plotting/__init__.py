"""Displays: they hold numbers, and draw them when asked."""

from sklmc.plotting._barrier_matrix import BarrierMatrixDisplay
from sklmc.plotting._cluster import ClusterDisplay
from sklmc.plotting._decision import DecisionRegionDisplay
from sklmc.plotting._features import FeatureConnectivityDisplay
from sklmc.plotting._loss_plane import LossPlaneDisplay
from sklmc.plotting._path import PathDisplay
from sklmc.plotting._preactivation import PreactivationDisplay
from sklmc.plotting._similarity import FeatureSimilarityDisplay
from sklmc.plotting._symmetry import SymmetryDisplay
from sklmc.plotting._width_curve import WidthCurveDisplay

__all__ = [
    "BarrierMatrixDisplay",
    "ClusterDisplay",
    "DecisionRegionDisplay",
    "FeatureConnectivityDisplay",
    "FeatureSimilarityDisplay",
    "LossPlaneDisplay",
    "PathDisplay",
    "PreactivationDisplay",
    "SymmetryDisplay",
    "WidthCurveDisplay",
]
