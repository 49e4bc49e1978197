"""One group of permutations: a set of hidden units in any order; and as plain values for JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sklmc._validation import check_seed
from sklmc.exceptions import PermutationError


@dataclass(frozen=True)
class PermutationGroup:
    """A set of indices whose order does not matter to the net.

    A group may lie *within* others (the coordinates within a head, the channels within a group):
    then it holds one permutation for every index of those, and its index arrays have the shape
    ``(*outer_sizes, size)``.

    Attributes
    ----------
    name : str
        The module (or tensor) that makes these units.
    size : int
        Number of units.
    within : tuple of str
        Names of the groups (or of fixed axes) on whose index the permutation may depend.
    outer_sizes : tuple of int
        Sizes of those.
    places : tuple of (str, int)
        Tensor and axis of every place where these units lie.
    unobservable : tuple of str
        Tensors that hold these units although no output sees them move: verification found that
        leaving such a tensor as it is changes nothing (a bias before a batch norm in train mode
        is seen in eval mode, so it is not one of them).

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> symmetry = discover_symmetry(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)))
    >>> symmetry.groups[0]
    PermutationGroup('0', size=8)
    >>> symmetry.groups[0].places
    (('0.weight', 0), ('0.bias', 0), ('2.weight', 1))
    """

    name: str
    size: int
    within: tuple[str, ...] = ()
    outer_sizes: tuple[int, ...] = ()
    places: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    unobservable: tuple[str, ...] = field(default=(), repr=False)

    @property
    def copies(self) -> int:
        """Number of independent permutations."""
        return math.prod(self.outer_sizes)

    @property
    def observable(self) -> bool:
        """Whether an output sees some tensor of the group move alone."""
        return len(set(self.unobservable)) < len({tensor for tensor, _ in self.places})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the group's index arrays."""
        return (*self.outer_sizes, self.size)

    @property
    def log2_order(self) -> float:
        """Binary logarithm of the number of elements."""
        return self.copies * math.lgamma(self.size + 1) / math.log(2)

    def _marked(self, unobservable: tuple[str, ...]) -> PermutationGroup:
        """Return the group with these tensors noted as unobservable."""
        return replace(self, unobservable=tuple(unobservable))

    def identity(self) -> np.ndarray:
        """Return the index array that moves nothing.

        Returns
        -------
        perm : ndarray of shape (*outer_sizes, size)
            0, 1, 2, ... in every copy.
        """
        return np.broadcast_to(np.arange(self.size), self.shape).copy()

    def draw(self, random_state: np.random.RandomState) -> np.ndarray:
        """Draw uniformly from all permutations of the group.

        Parameters
        ----------
        random_state : RandomState
            Source of chance.

        Returns
        -------
        perm : ndarray of shape (*outer_sizes, size)
            Independent over copies.
        """
        random = check_seed(random_state, "PermutationGroup.draw")
        keys = random.random_sample(self.shape)
        return np.argsort(keys, axis=-1, kind="stable")

    def check(self, perm) -> np.ndarray:
        """Return an index array as int64 if it belongs to this group.

        Parameters
        ----------
        perm : array-like of int
            The index array.

        Returns
        -------
        perm : ndarray of shape (*outer_sizes, size)
            A copy in int64.

        Raises
        ------
        PermutationError
            If it has another shape or dtype, or is no permutation.
        """
        return self._check(perm, "PermutationGroup.check")

    def _check(self, perm, caller: str) -> np.ndarray:
        """Check an index array, and name who asks."""
        try:
            array = np.asarray(perm)
        except ValueError:  # rows of different length
            array = np.array(None)
        if array.dtype.kind not in "iu":
            raise PermutationError(
                f"{caller}: the index array of group {self.name!r} must hold integers, got dtype "
                f"{array.dtype}."
            )
        if array.shape != self.shape:
            raise PermutationError(
                f"{caller}: the index array of group {self.name!r} must have shape {self.shape}, "
                f"got {array.shape}."
            )
        if not (np.sort(array, axis=-1) == np.arange(self.size)).all():
            raise PermutationError(
                f"{caller}: the index array of group {self.name!r} is no permutation of "
                f"0..{self.size - 1}: every index must occur once."
            )
        return array.astype(np.int64)

    def __repr__(self) -> str:
        inside = f", within={self.within!r}, copies={self.copies}" if self.within else ""
        return f"PermutationGroup({self.name!r}, size={self.size}{inside})"


def checksum(values: Mapping) -> str:
    """Return the SHA-256 of values as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_size(value) -> int:
    """Return a size; anything else is damage."""
    require(type(value) is int and value >= 0, f"{value!r} is no size")
    return value


def require(holds, what: str) -> None:
    """Raise where a part of a spec does not fit the others."""
    if not holds:
        raise ValueError(what)


def group_to_dict(group: PermutationGroup) -> dict:
    """Return a group as plain values."""
    return {
        "name": group.name,
        "size": group.size,
        "within": list(group.within),
        "outer_sizes": list(group.outer_sizes),
        "places": [list(place) for place in group.places],
        "unobservable": list(group.unobservable),
    }


def group_from_dict(entry: Mapping) -> PermutationGroup:
    """Return the group written by `group_to_dict`; what does not fit raises any error."""
    group = PermutationGroup(
        entry["name"],
        read_size(entry["size"]),
        tuple(entry["within"]),
        tuple(map(read_size, entry["outer_sizes"])),
        tuple((tensor, read_size(axis)) for tensor, axis in entry["places"]),
        tuple(entry["unobservable"]),
    )
    names = (group.name, *group.within, *group.unobservable, *(name for name, _ in group.places))
    require(all(isinstance(name, str) for name in names), "a name is no text")
    require(len(group.within) == len(group.outer_sizes), f"{group.name!r} lacks an outer size")
    return group
