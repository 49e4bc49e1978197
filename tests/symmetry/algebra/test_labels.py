"""The algebra of axes, alone: no net, no tensor."""

from __future__ import annotations

import itertools

import pytest

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import UNIT, Reason, axis_size
from sklmc.symmetry._labelling._extraction import cut_into_pieces

WHY = Reason("test")


@pytest.fixture
def labels():
    return Labels()


def axis(labels, size, outer=()):
    return ((labels.leaf(size, outer),),)


def sizes(labels, label):
    """Sizes of the leaves, segment by segment."""
    return [[leaf.size for leaf in segment] for segment in labels.resolve(label)]


def test_unify_makes_two_leaves_one(labels):
    a, b = axis(labels, 6), axis(labels, 6)
    labels.unify(a, b)
    assert labels.resolve(a) == labels.resolve(b)


def test_fixing_spreads_to_equal_leaves(labels):
    a, b = axis(labels, 6), axis(labels, 6)
    labels.unify(a, b)
    labels.fix(a, WHY)
    assert labels.is_fixed(b)


def test_fixing_first_spreads_as_well(labels):
    a, b = axis(labels, 6), axis(labels, 6)
    labels.fix(a, WHY)
    labels.unify(b, a)
    assert labels.is_fixed(b)


def test_uniform_axis_agrees_with_everything(labels):
    a = axis(labels, 6)
    before = labels.version
    labels.unify(a, None)
    labels.unify(None, a)
    assert labels.version == before


def test_split_and_merge_are_inverse(labels):
    a = axis(labels, 24)
    h, d = labels.split(a, [4, 6])
    assert labels.resolve(labels.merge([h, d])) == labels.resolve(a)
    assert sizes(labels, a) == [[4, 6]]
    assert labels.outer(d[0][0]) == {h[0][0]}


def test_split_twice_refines_the_same_leaves(labels):
    a = axis(labels, 24)
    labels.split(a, [4, 6])
    x, y, z = labels.split(a, [2, 2, 6])
    assert sizes(labels, a) == [[2, 2, 6]]
    assert [axis_size(part) for part in (x, y, z)] == [2, 2, 6]


def test_split_that_does_not_divide_fixes(labels):
    a = axis(labels, 12)
    labels.split(a, [4, 3])
    labels.split(a, [3, 4])
    assert labels.is_fixed(a)


def test_products_unify_from_the_outermost_factor(labels):
    a, b = axis(labels, 24), axis(labels, 24)
    labels.split(a, [4, 6])
    labels.split(b, [2, 12])
    labels.unify(a, b)
    assert sizes(labels, a) == sizes(labels, b) == [[2, 2, 6]]
    assert labels.resolve(a) == labels.resolve(b)


@pytest.mark.parametrize("turned", [False, True])
def test_a_leaf_that_is_a_product_makes_its_factors_no_more_dependent(labels, turned):
    product, whole = axis(labels, 4)[0] + axis(labels, 6)[0], axis(labels, 24)
    ends = ((product,), whole)
    labels.unify(*(reversed(ends) if turned else ends))
    assert labels.resolve(whole) == (product,)
    assert [labels.outer(leaf) for leaf in product] == [set(), set()]


def test_a_split_takes_whole_factors_and_parts_of_the_next(labels):
    a = axis(labels, 24)
    labels.split(a, [4, 6])
    labels.split(a, [8, 3])
    assert sizes(labels, a) == [[4, 2, 3]]
    b = axis(labels, 24)
    labels.split(b, [12, 2])  # 8 of these would be 4, and 2 of the remaining 3
    labels.split(b, [8, 3])
    assert labels.is_fixed(b)


def test_sums_unify_piece_by_piece(labels):
    a, b = axis(labels, 10), axis(labels, 10)
    labels.cut(a, [4])
    labels.cut(b, [7])
    labels.unify(a, b)
    assert sizes(labels, a) == [[4], [3], [3]]
    assert labels.resolve(a) == labels.resolve(b)


def test_sums_of_many_pieces_unify_at_every_border(labels):
    a, b = axis(labels, 10), axis(labels, 10)
    labels.cut(a, [3, 6])
    labels.cut(b, [4])
    labels.unify(a, b)
    assert sizes(labels, a) == sizes(labels, b) == [[3], [], [2], [4]]


def test_products_of_which_no_factor_divides_the_other_are_fixed(labels):
    a, b = axis(labels, 24), axis(labels, 24)
    labels.split(a, [4, 6])
    labels.split(b, [6, 4])
    labels.unify(a, b)
    assert labels.is_fixed(a)
    assert labels.is_fixed(b)


def test_cut_returns_the_pieces_in_order(labels):
    a = axis(labels, 10)
    pieces = labels.cut(a, [4, 7])
    assert [axis_size(piece) for piece in pieces] == [4, 3, 3]
    assert labels.resolve(a) == tuple(s for piece in pieces for s in labels.resolve(piece))


def test_cut_of_an_aligned_product_keeps_the_inner_factor(labels):
    a = axis(labels, 24)
    outer, inner = labels.split(a, [4, 6])
    labels.drop(inner[0][0], outer[0][0])
    left, right = labels.cut(a, [12])
    assert sizes(labels, left) == [[2, 6]]
    assert labels.resolve(left)[0][1] is labels.resolve(right)[0][1]


@pytest.mark.parametrize("bounds", [[6, 9], [9, 12], [9]])
def test_cut_beside_the_borders_of_blocks_goes_through_a_block(labels, bounds):
    a = axis(labels, 24)
    outer, inner = labels.split(a, [4, 6])
    labels.drop(inner[0][0], outer[0][0])
    pieces = labels.cut(a, bounds)
    places = [0, *bounds, 24]
    assert [axis_size(p) for p in pieces] == [j - i for i, j in itertools.pairwise(places)]
    assert labels.is_fixed(outer)


def test_index_of_a_concatenation_tells_nothing_of_its_first_part(labels):
    """At index 5 of a + b, of sizes 4 and 3, there is no index of a."""
    a, b = labels.leaf(4), labels.leaf(3)
    inner = labels.leaf(6, {a})
    before = labels.resolve(((inner,),))
    assert labels.restrict([((a,), (b,)), ((inner,),)], 0, 5, WHY) == [before]
    assert labels.resolve(((inner,),)) == before
    assert labels.is_fixed(((a,), (b,)))
    assert not inner.kids


def test_cut_through_dependent_blocks_fixes_the_blocks_only(labels):
    a = axis(labels, 24)
    outer, _ = labels.split(a, [4, 6])
    left, right = labels.cut(a, [12])
    assert labels.is_fixed(outer)
    assert sizes(labels, left) == [[6], [6]]
    assert len({leaf for part in (left, right) for leaf in labels.members(part)}) == 4
    assert not any(leaf.reason for leaf in labels.members(left))


def test_parts_of_a_packed_projection_become_different_things(labels):
    """Three equal parts seen as (3, n), of which one is split further."""
    a = axis(labels, 24)
    index, part = labels.split(a, [3, 8])
    query = labels.restrict([index, part], 0, 0, WHY)[0]
    labels.restrict([index, part], 0, 1, WHY)
    labels.split(query, [2, 4])
    assert labels.is_fixed(index)
    pieces = cut_into_pieces(labels, (a,))
    assert [[leaf.size for leaf in factors] for ((factors, _),) in pieces] == [[2, 4], [8], [8]]
    assert [int(positions.flat[0]) for ((_, positions),) in pieces] == [0, 8, 16]


def test_losing_the_dependence_makes_the_parts_one(labels):
    index, part = labels.split(axis(labels, 24), [3, 8])
    first = labels.restrict([index, part], 0, 0, WHY)[0]
    second = labels.restrict([index, part], 0, 1, WHY)[0]
    assert labels.resolve(first) != labels.resolve(second)
    labels.drop(labels.find(part[0][0]), labels.find(index[0][0]))
    assert labels.resolve(first) == labels.resolve(second) == labels.resolve(part)


def test_concatenation_seen_as_equal_parts(labels):
    a, b = axis(labels, 6), axis(labels, 6)
    index, part = labels.split(a + b, [2, 6])
    assert labels.is_fixed(index)
    first = labels.restrict([index, part], 0, 0, WHY)[0]
    assert labels.resolve(first) == labels.resolve(a)


def test_parts_of_two_concatenations_are_different_things_and_found_again(labels):
    found = {}
    for scope in ("one", "other"):
        labels.enter(scope)
        whole = axis(labels, 6) + axis(labels, 6)
        found[scope] = whole, labels.split(whole, [2, 6])
        other = axis(labels, 6) + axis(labels, 6)  # a second one in the same operation
        assert labels.split(other, [2, 6]) != found[scope][1]
    (_, first), (_, second) = found.values()
    assert first[0] != second[0]
    assert labels.resolve(first[1]) != labels.resolve(second[1])
    labels.enter("one")
    whole, parts = found["one"]
    before = labels.version
    assert labels.split(whole, [2, 6]) == parts
    assert labels.version == before


def test_sum_inside_a_product_stays_apart(labels):
    h, a, b = axis(labels, 3), axis(labels, 4), axis(labels, 2)
    whole = labels.merge([h, a + b])
    assert axis_size(whole) == 18
    pieces = cut_into_pieces(labels, (whole,))
    assert [positions.shape for ((_, positions),) in pieces] == [(3, 4), (3, 2)]
    assert pieces[1][0][1][:, 0].tolist() == [4, 10, 16]


def test_axis_that_would_contain_itself_is_fixed(labels):
    a, b = axis(labels, 4), axis(labels, 2)
    labels.split(a, [2, 2])
    labels.refine(b[0][0], UNIT + a[:0] + ((labels.find(b[0][0]),),))
    assert labels.is_fixed(b)


def test_a_product_with_a_sum_inside_is_split_between_its_factors_only(labels):
    h, a, b = axis(labels, 4), axis(labels, 4), axis(labels, 2)
    whole = labels.merge([h, a + b])
    assert labels.split(whole, [4, 6]) == [h, ((labels.wrap(a + b),),)]
    labels.split(whole, [8, 3])
    assert all(labels.is_fixed(part) for part in (h, a, b))


def test_view_keeps_what_it_does_not_touch(labels):
    n, c, hw = axis(labels, 2), axis(labels, 5), axis(labels, 12)
    found = labels.view([n, c, hw], [2, 5, 12], [2, 60], "key")
    assert found[0] == n
    assert sizes(labels, found[1]) == [[5, 12]]


def test_view_gives_a_uniform_dimension_a_leaf_only_where_it_is_merged(labels):
    a = axis(labels, 5)
    assert labels.view([a, None], [5, 3], [5, 3, 1], "key") == [a, None, UNIT]
    merged = labels.view([a, None], [5, 3], [15], "key")[0]
    assert sizes(labels, merged) == [[5, 3]]
    assert labels.view([a, None], [5, 3], [15], "key")[0] == merged


def test_dependence_survives_where_every_operand_sees_it(labels):
    labels.observing = True
    group = labels.leaf(4)
    inner = labels.leaf(6, {group})
    labels.join({"g": ((group,),), "i": ((inner,),)}, {"g": ((group,),), "o": axis(labels, 3)})
    assert labels.outer(inner) == {group}


def test_dependence_ends_where_an_operand_does_not_see_it(labels):
    labels.observing = True
    group = labels.leaf(4)
    inner = labels.leaf(6, {group})
    labels.join({"g": ((group,),), "i": ((inner,),)}, {"i": ((inner,),)})
    assert labels.outer(inner) == set()


def test_dependence_on_a_leaf_seen_twice_ends(labels):
    """In A A^T the rows are met at two places: which one would be meant?"""
    labels.observing = True
    rows = labels.leaf(4)
    inner = labels.leaf(6, {rows})
    labels.join(
        {"m": ((rows,),), "k": ((inner,),)},
        {"n": ((rows,),), "k": ((inner,),)},
        {"m": ((rows,),), "n": ((rows,),)},
    )
    assert labels.outer(inner) == set()


def test_settled_dependence_is_transitive_and_free_of_circles(labels):
    a, b, c = labels.leaf(2), labels.leaf(3), labels.leaf(4)
    b.outer, c.outer = {a}, {b}
    labels.settle()
    assert labels.outer(c) == set()  # c knows b, but not the a on which b depends
    d, e = labels.leaf(2), labels.leaf(3)
    d.outer, e.outer = {e}, {d}
    labels.settle()
    assert not (labels.outer(d) and labels.outer(e))


def test_pick_cuts_one_index_out_of_a_free_axis(labels):
    a, b = axis(labels, 5), axis(labels, 3)
    rest = labels.pick([a, b], 0, 2, WHY)
    assert rest == [b]
    assert sizes(labels, a) == [[2], [], [2]]
    assert not labels.is_fixed(a)
