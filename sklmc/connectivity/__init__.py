"""What lies between nets: paths, their barriers (linear mode connectivity), planes, scores."""

from sklmc.connectivity._clusters import ModelClusters
from sklmc.connectivity._controls import path_controls
from sklmc.connectivity._curve import fit_curve
from sklmc.connectivity._intervals import MedianInterval
from sklmc.connectivity._pairwise_score import PairwiseScore
from sklmc.connectivity._path_score import PathScore
from sklmc.connectivity._plane import LossPlane, loss_plane
from sklmc.connectivity._scorer import LMCScorer
from sklmc.connectivity._scorer import check_scorer as check_scorer

__all__ = [
    "LMCScorer",
    "LossPlane",
    "MedianInterval",
    "ModelClusters",
    "PairwiseScore",
    "PathScore",
    "fit_curve",
    "loss_plane",
    "path_controls",
]
