"""Displays: they hold numbers, and draw them when asked."""

from sklmc.plotting._path import PathDisplay
from sklmc.plotting._symmetry import SymmetryDisplay
from sklmc.plotting._width_curve import WidthCurveDisplay

__all__ = ["PathDisplay", "SymmetryDisplay", "WidthCurveDisplay"]
