"""Which of the permutations that leave a net's function unchanged brings B closest to A.

Weight matching, activation matching and straight-through matching of hidden units, as in Git
Re-Basin; ``_methods.py`` lists them with what each needs.
"""

from sklmc.alignment._aligner import PermutationAligner
from sklmc.alignment._multi import ALIGNER_NAMES as ALIGNER_NAMES
from sklmc.alignment._multi import MultiAligner
from sklmc.alignment._multi import check_aligner as check_aligner
from sklmc.alignment._multi import inner_product as inner_product
from sklmc.alignment._multi import make_aligner as make_aligner

__all__ = ["MultiAligner", "PermutationAligner"]
