"""Aligners by name, for the rooms that take one as a parameter."""

from __future__ import annotations

from sklmc._validation import check_option
from sklmc.alignment._aligner import PermutationAligner
from sklmc.alignment._methods import METHODS
from sklmc.alignment._multi import MultiAligner

ALIGNER_NAMES = (*METHODS, "merge_many")


def check_aligner(aligner, caller: str):
    """Return `aligner` if it is a name, an aligner with its own settings, or None."""
    if isinstance(aligner, type):
        raise TypeError(
            f"{caller}: 'aligner' is the class {aligner.__name__}; pass an instance of it."
        )
    if not (hasattr(aligner, "fit") and hasattr(aligner, "transform")):
        check_option(aligner, [*ALIGNER_NAMES, None], caller, "aligner")
    return aligner


def make_aligner(name: str) -> PermutationAligner | MultiAligner:
    """Return the aligner of a method's name, with a fixed seed: the same call, the same result."""
    if name == "merge_many":
        return MultiAligner("merge_many", random_state=0)
    return PermutationAligner(name, random_state=0)
