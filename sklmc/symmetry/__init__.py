"""Which permutations of hidden units leave a net's function unchanged: found, then proved.

`_discovery` is the road through the room: `_tracing` exports the forward pass; `_labelling` carries
labels (`_algebra`) through its graph by one rule per operation (`_rules`) and reads groups off them
(`_groups`); `_proof` moves units and sees that the function stays. `_symmetry` holds the result,
which `_spec` and `_axes_to_perm` write down and read back.
"""

from __future__ import annotations

from sklmc.symmetry._discovery import cached_symmetry as cached_symmetry
from sklmc.symmetry._discovery import discover_symmetry
from sklmc.symmetry._groups._blocks import Block, BlockAxis, FrozenAxis
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._permutation import Permutation
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
