"""Errors and warnings that a caller may want to catch; each also inherits the builtin."""

from __future__ import annotations

__all__ = [
    "ArchitectureMismatchError",
    "DivergedMemberWarning",
    "MergeWarning",
    "NonFiniteError",
    "NonFiniteLossWarning",
    "PairFailedWarning",
    "PermutationError",
    "SklmcWarning",
    "StaleStatisticsWarning",
    "SymmetryError",
    "TraceError",
]


class ArchitectureMismatchError(ValueError):
    """Two models cannot be combined because their tensors differ."""


class NonFiniteError(ValueError):
    """A weight or an input is NaN or infinite."""


class SymmetryError(ValueError):
    """A permutation symmetry is missing, wrong, or does not belong to the model."""


class TraceError(SymmetryError):
    """The forward pass of a module could not be traced."""


class PermutationError(ValueError):
    """An index array is not a permutation of the group that it is meant for."""


class SklmcWarning(UserWarning):
    """Base class of the warnings raised by sklmc."""


class DivergedMemberWarning(SklmcWarning):
    """A member of a population ended with weights that are not finite."""


class MergeWarning(SklmcWarning):
    """A merged net is worse than the nets that it was made of."""


class NonFiniteLossWarning(SklmcWarning):
    """A loss on the path between two models is NaN or infinite."""


class PairFailedWarning(SklmcWarning):
    """A pair of models could not be scored; the others were."""


class StaleStatisticsWarning(SklmcWarning):
    """Batch-norm statistics were averaged although they do not belong to the averaged weights."""
