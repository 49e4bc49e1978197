"""Which permutations of hidden units leave a net's function unchanged: found, then proved."""

from __future__ import annotations

from sklmc.symmetry._blocks import Block, BlockAxis
from sklmc.symmetry._cache import cached_symmetry as cached_symmetry
from sklmc.symmetry._discovery import discover_symmetry
from sklmc.symmetry._extraction import FrozenAxis
from sklmc.symmetry._group import PermutationGroup
from sklmc.symmetry._permutation import Permutation
from sklmc.symmetry._rules import register_rule
from sklmc.symmetry._symmetry import PermutationSymmetry

__all__ = [
    "Block",
    "BlockAxis",
    "FrozenAxis",
    "Permutation",
    "PermutationGroup",
    "PermutationSymmetry",
    "discover_symmetry",
    "register_rule",
]
