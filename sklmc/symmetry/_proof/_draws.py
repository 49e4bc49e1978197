"""Elements of a claimed group that put the claim to the test.

The elements that leave a net's function unchanged are a subgroup of those that are claimed. Where
the claim is wrong it is a proper subgroup and holds at most half of them, so a uniform draw misses
the fault with probability at most 1/2, and `N_DRAWS` of them with at most 1e-6. Nothing weaker than
uniform draws of the whole has such a bound: single cycles, say, move all copies of two units alike,
and only ever rotate three units.

Simple elements of one group (`SIMPLE`) find out which group is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sklmc.symmetry._groups._group import PermutationGroup

N_DRAWS = 20  # uniform draws that carry a proof: 2 ** -20 is about 1e-6

Element = dict[str, np.ndarray]  # index arrays by group; groups that are left out do not move


def uniform(groups: Sequence[PermutationGroup], random: np.random.RandomState) -> Element:
    """Draw uniformly from all elements of several groups but the identity."""
    while True:
        element = {group.name: group.draw(random) for group in groups}
        moves = any((array != np.arange(array.shape[-1])).any() for array in element.values())
        if moves or all(group.size < 2 for group in groups):
            return element


def transposition(group: PermutationGroup, random: np.random.RandomState) -> np.ndarray:
    """Exchange two units of one copy."""
    array = group.identity()
    copy = array.reshape(-1, group.size)[random.randint(group.copies)]
    pair = random.choice(group.size, 2, replace=False)
    copy[pair] = copy[pair[::-1]]
    return array


def one_copy(group: PermutationGroup, random: np.random.RandomState) -> np.ndarray:
    """Put the units of one copy into another order."""
    return _some_copies(group, random.randint(group.copies, size=1), random)


def subset_of_copies(group: PermutationGroup, random: np.random.RandomState) -> np.ndarray:
    """Put the units of some copies, not all, into another order each."""
    size = random.randint(1, group.copies)
    return _some_copies(group, random.choice(group.copies, size, replace=False), random)


def _some_copies(group: PermutationGroup, chosen: np.ndarray, random) -> np.ndarray:
    """Draw uniformly from the elements but the identity that move the chosen copies only."""
    array = group.identity()
    copies = array.reshape(-1, group.size)
    while (copies == np.arange(group.size)).all():
        copies[chosen] = group.draw(random).reshape(-1, group.size)[chosen]
    return array


SIMPLE: dict[str, Callable[[PermutationGroup, np.random.RandomState], np.ndarray]] = {
    "transposition": transposition,
    "one copy": one_copy,
    "subset of copies": subset_of_copies,
}


def simple_kinds(group: PermutationGroup) -> list[str]:
    """Return the kinds of simple elements that a group has."""
    if group.size < 2:
        return []
    return list(SIMPLE) if group.copies > 1 else ["transposition"]
