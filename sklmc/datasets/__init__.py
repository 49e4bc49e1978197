"""Data sets of the studies in this field, split into a training and a test part."""

from sklmc.datasets._images import load_images
from sklmc.datasets._small import load_digits_split, load_moons
from sklmc.datasets._split import DataSplit

__all__ = ["DataSplit", "load_digits_split", "load_images", "load_moons"]
