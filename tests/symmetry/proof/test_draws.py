"""Elements that test a claim: every kind is what it says, and none is left out."""

from __future__ import annotations

import numpy as np
import pytest

from sklmc.symmetry import PermutationGroup
from sklmc.symmetry._proof._draws import SIMPLE, simple_kinds, uniform

HEADS = PermutationGroup("h", 3)
COPIES = PermutationGroup("g", 2, ("h",), (3,))


def moved_copies(array):
    return (array.reshape(-1, array.shape[-1]) != np.arange(array.shape[-1])).any(axis=1)


def test_uniform_elements_are_all_elements_but_the_identity():
    random = np.random.RandomState(0)
    draws = [uniform([COPIES], random)["g"].tobytes() for _ in range(700)]
    counts = [draws.count(draw) for draw in set(draws)]
    assert len(counts) == 2**3 - 1
    assert min(counts) > 60  # 100 expected, standard deviation 9


def test_uniform_elements_move_groups_independently():
    random = np.random.RandomState(0)
    pairs = {
        (element["h"].tobytes(), element["g"].tobytes())
        for element in (uniform([HEADS, COPIES], random) for _ in range(1000))
    }
    assert len(pairs) == 6 * 8 - 1


def test_nothing_can_be_drawn_but_the_identity_where_no_group_has_two_units():
    alone = PermutationGroup("one", 1)
    assert uniform([alone], np.random.RandomState(0))["one"].tolist() == [0]
    assert simple_kinds(alone) == []


def test_a_group_of_one_unit_beside_others_does_not_let_the_identity_through():
    random = np.random.RandomState(0)
    groups = [PermutationGroup("one", 1), PermutationGroup("two", 2)]
    assert {tuple(uniform(groups, random)["two"]) for _ in range(20)} == {(1, 0)}


@pytest.mark.parametrize("kind", list(SIMPLE))
@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 5), (4, 3)])
def test_simple_elements_move_what_they_say(kind, shape):
    copies, size = shape
    group = PermutationGroup("g", size, ("h",), (copies,))
    assert kind in simple_kinds(group)
    random = np.random.RandomState(0)
    seen = set()
    for _ in range(100):
        array = SIMPLE[kind](group, random)
        assert group.check(array) is not None
        moved = moved_copies(array)
        seen.add(tuple(moved))
        assert 1 <= moved.sum() <= (copies - 1 if kind == "subset of copies" else 1)
        if kind == "transposition":
            assert (array != np.arange(size)).sum() == 2
    assert len(seen) >= copies


def test_a_group_without_copies_has_transpositions_only():
    assert simple_kinds(HEADS) == ["transposition"]
    array = SIMPLE["transposition"](HEADS, np.random.RandomState(0))
    assert (array != np.arange(3)).sum() == 2
