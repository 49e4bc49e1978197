"""Which of the permutations that leave a net's function unchanged brings B closest to A."""

from sklmc.alignment._aligner import PermutationAligner
from sklmc.alignment._multi import MultiAligner

__all__ = ["MultiAligner", "PermutationAligner"]
