"""Which of the permutations that leave a net's function unchanged brings B closest to A."""

from sklmc.alignment._aligner import PermutationAligner

__all__ = ["PermutationAligner"]
