"""Many nets into one: merges, averages, repairs."""

from sklmc.merging._averager import WeightAverager
from sklmc.merging._merge import merge_models
from sklmc.merging._repair import repair

__all__ = ["WeightAverager", "merge_models", "repair"]
