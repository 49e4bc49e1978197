"""Leaves alone: what is counted as a change, what encloses a leaf, what follows a refined leaf."""

from __future__ import annotations

import pytest

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import Reason, axis_size

WHY = Reason("test")


@pytest.fixture
def labels():
    return Labels()


def halved(labels, leaf):
    labels.split(((leaf,),), [2, 2])


CHANGES = {  # on leaves x and y of four, and y depends on x
    "united": lambda labels, x, y: labels.unite(x, labels.leaf(4)),
    "fixed": lambda labels, x, y: labels.fix(((x,),), WHY),
    "refined": lambda labels, x, y: labels.refine(x, ((labels.leaf(2), labels.leaf(2)),)),
    "independent": lambda labels, x, y: labels.drop(y, x),
    "written out": lambda labels, x, y: labels.at(((y,),), x, 1),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_every_change_is_counted_and_nothing_else(labels, change):
    x = labels.leaf(4)
    y = labels.leaf(4, {x})
    before = labels.version
    CHANGES[change](labels, x, y)
    assert labels.version > before
    if change in ("fixed", "written out"):
        before = labels.version
        CHANGES[change](labels, x, y)
        assert labels.version == before


def test_what_lies_in_a_sum_within_a_product_is_enclosed_by_the_outer_factor(labels):
    """Of h (a + b), a is told the index of h; it is not told itself."""
    h, a, b = labels.leaf(3), labels.leaf(4), labels.leaf(2)
    whole = labels.merge([((h,),), ((a,), (b,))])
    around = dict(labels.ends(whole))
    assert [leaf for leaf, _ in labels.ends(whole)] == [h, a, b]
    assert [around[leaf].count(h) for leaf in (a, b)] == [1, 1]
    assert around[a] == (h, a)


def test_a_leaf_within_a_sum_keeps_its_dependence_on_the_factor_outside(labels):
    labels.observing = True
    h, b = labels.leaf(3), labels.leaf(2)
    a = labels.leaf(4, {h})
    labels.join({"units": labels.merge([((h,),), ((a,), (b,))])})
    assert labels.outer(a) == {h}


def test_who_depends_on_a_leaf_depends_on_the_factors_that_it_becomes(labels):
    x = labels.leaf(4)
    y = labels.leaf(5, {x})
    outer, inner = labels.split(((x,),), [2, 2])
    assert labels.outer(y) == {outer[0][0], inner[0][0]}


def test_nobody_depends_on_a_leaf_that_becomes_a_sum(labels):
    """Half of the places of a sum have no index of its first part."""
    x = labels.leaf(4)
    y = labels.leaf(5, {x})
    labels.cut(((x,),), [2])
    assert labels.outer(y) == set()


def test_parts_at_single_indices_are_one_when_the_index_becomes_a_product(labels):
    x = labels.leaf(4)
    y = labels.leaf(5, {x})
    first, second = (labels.at(((y,),), x, k) for k in (0, 1))
    assert labels.resolve(first) != labels.resolve(second)
    halved(labels, x)
    assert labels.resolve(first) == labels.resolve(second) == labels.resolve(((y,),))
    assert labels.outer(y) == set()


def test_all_of_an_axis_that_would_contain_itself_is_fixed(labels):
    x, y = labels.leaf(4), labels.leaf(2)
    labels.refine(x, ((x, y),))
    assert labels.is_fixed(((x, y),))


@pytest.mark.parametrize("turned", [False, True])
def test_united_with_a_sum_a_leaf_is_that_sum(labels, turned):
    a, b, plain = labels.leaf(4), labels.leaf(2), labels.leaf(6)
    ends = (labels.wrap(((a,), (b,))), plain)
    labels.unite(*(reversed(ends) if turned else ends))
    assert labels.resolve(((plain,),)) == ((a,), (b,))


@pytest.mark.parametrize("turned", [False, True])
def test_a_leaf_that_would_be_a_part_of_itself_is_fixed(labels, turned):
    """A rule of somebody else's may ask for it."""
    whole = labels.leaf(6)
    outer, inner = labels.split(((whole,),), [3, 2])
    ends = (whole, outer[0][0])
    labels.unite(*(reversed(ends) if turned else ends))
    assert labels.is_fixed(outer)
    assert labels.is_fixed(inner)


def test_a_sum_within_a_product_is_seen_at_one_index_part_by_part(labels):
    index, h, b = labels.leaf(2), labels.leaf(3), labels.leaf(2)
    a = labels.leaf(4, {index})
    whole = labels.merge([((h,),), ((a,), (b,))])
    found = labels.at(whole, index, 1)
    assert [leaf for leaf, _ in labels.ends(found)] == [h, labels.kids(a)[index][1], b]
    assert axis_size(found) == axis_size(whole)


def test_parts_of_united_leaves_are_united_index_by_index(labels):
    x = labels.leaf(2)
    y, z = labels.leaf(5, {x}), labels.leaf(5, {x})
    parts = [[labels.at(((leaf,),), x, k) for k in (0, 1)] for leaf in (y, z)]
    labels.unite(y, z)
    for one, other in zip(*parts, strict=True):
        assert labels.resolve(one) == labels.resolve(other)
    assert labels.resolve(parts[0][0]) != labels.resolve(parts[0][1])


def test_a_fixed_leaf_fixes_its_parts_and_all_that_it_becomes(labels):
    x = labels.leaf(2)
    y = labels.leaf(4, {x})
    part = labels.at(((y,),), x, 1)
    labels.fix(((y,),), WHY)
    assert labels.is_fixed(part)
    z = labels.leaf(4)
    halved(labels, z)
    labels.fix(((z,),), WHY)
    assert labels.is_fixed(labels.resolve(((z,),)))


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_united_with_a_fixed_leaf_is_fixed_with_all_its_parts(labels, turned):
    x = labels.leaf(2)
    y, a, b = labels.leaf(6, {x}), labels.leaf(4), labels.leaf(2)
    part = labels.at(((y,),), x, 1)
    for other in (y, labels.wrap(((a,), (b,)))):
        ends = (labels.leaf(6, reason=WHY), other)
        labels.unite(*(reversed(ends) if turned else ends))
    assert labels.is_fixed(part)
    assert labels.is_fixed(((a,), (b,)))
