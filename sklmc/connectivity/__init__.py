"""What lies between nets: paths, barriers, and scores made of them."""

from sklmc.connectivity._pairwise_score import PairwiseScore
from sklmc.connectivity._path_score import PathScore
from sklmc.connectivity._scorer import LMCScorer

__all__ = ["LMCScorer", "PairwiseScore", "PathScore"]
