"""Aligners by name, for the rooms that take one as a parameter."""

from __future__ import annotations

from sklmc.alignment._aligner import PermutationAligner
from sklmc.alignment._multi import MultiAligner
from sklmc.alignment._portfolio import METHODS

ALIGNER_NAMES = (*METHODS, "merge_many")


def named_aligner(name: str) -> PermutationAligner | MultiAligner:
    """Return the aligner of a method's name, with a fixed seed: the same call, the same result."""
    if name == "merge_many":
        return MultiAligner("merge_many", random_state=0)
    return PermutationAligner(name, random_state=0)
