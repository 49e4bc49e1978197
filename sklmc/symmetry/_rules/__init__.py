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
from sklmc.symmetry._rules._registry import (
    RULES,
    Labelled,
    Operation,
    find_rule,
    operation_name,
    register_rule,
)

FAMILIES = (
    *(_contraction, _convolution, _indexing, _norms, _pointwise),
    *(_position, _recurrent, _reductions, _shapes),
)

__all__ = ["RULES", "Labelled", "Operation", "find_rule", "operation_name", "register_rule"]
