"""Data sets of the studies in this field, split into a training and a test part."""

from sklmc.datasets._loaders import DataSplit, load_digits_split, load_images, load_moons

__all__ = ["DataSplit", "load_digits_split", "load_images", "load_moons"]
