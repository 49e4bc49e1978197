"""Rules by family of operations: how each carries permutations from operands to results."""

from __future__ import annotations

from sklmc.symmetry._rules import (
    _contraction,
    _convolution,
    _indexing,
    _norms,
    _pointwise,
    _position,
    _recurrent,
    _reductions,
    _shapes,
)
from sklmc.symmetry._rules._registry import RULES, Labelled, register_rule

FAMILIES = (
    *(_contraction, _convolution, _indexing, _norms, _pointwise),
    *(_position, _recurrent, _reductions, _shapes),
)

__all__ = ["RULES", "Labelled", "register_rule"]
