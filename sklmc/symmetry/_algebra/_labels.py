"""The algebra of axes: unify, split, cut, merge, restrict, and who may depend on whom.

Written with letters for leaves, an axis is a sum of products, outermost factor first:

    (h, d)        64 coordinates = 4 heads h times 16 within a head d: index = 16 h + d
    a + b         a concatenation: all of a, then all of b
    (c, p)        channels c flattened with their 36 positions p: index = 36 c + p
    g + g + g     three gates of a recurrent layer that share their units g

Every operation only adds constraints, and one too many (a leaf fixed, two united, a dependence
dropped) still leaves a subgroup of the true symmetries: what cannot be expressed may be fixed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sklmc.symmetry._algebra._leaves import (
    UNIT,
    Axis,
    Leaf,
    LeafStore,
    Reason,
    Segment,
    segment_size,
)

EXPANSION_LIMIT = 256  # a fixed outer leaf is written out index by index up to this size

_MISALIGNED = Reason("the index sets cannot be told apart")
_BESIDE_FIXED = Reason("lies along an axis that is fixed")


class Labels(LeafStore):
    """Leaves with the operations that the rules end in.

    A tensor's label is one axis per dimension; None is a *uniform* axis, along which all values
    are equal: it agrees with anything. While `observing` is False, dependence on outer leaves is
    collected and not yet judged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observing = False
        self._scope: Hashable = None
        self._counts: Counter = Counter()

    def enter(self, scope: Hashable) -> None:
        """Note which operation asks from now on: what it made in an earlier pass is found again."""
        self._scope = scope
        self._counts.clear()

    def _key(self, *what: Hashable) -> tuple:
        """Return a key for something that the present operation makes."""
        self._counts[what] += 1
        return (self._scope, *what, self._counts[what])

    # -- equality --------------------------------------------------------------------------

    def unify(self, a: Axis | None, b: Axis | None) -> None:
        """Let two axes be one; what does not match is fixed."""
        if a is None or b is None:
            return
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return
        if len(a) == len(b) == 1:
            self._unify_products(a[0], b[0])
        # from here on at least one is a sum
        elif self.is_fixed(a) or self.is_fixed(b):
            self.fix((*a, *b), _BESIDE_FIXED)  # equal places: nothing to cut
        elif len(a) == 1 and len(a[0]) == 1:
            self.refine(a[0][0], b)
        elif len(b) == 1 and len(b[0]) == 1:
            self.refine(b[0][0], a)
        else:  # a (6) + b (2) against c (4) + d (4): cut both at 4 and 6, then piece by piece
            bounds = sorted(_bounds(a) | _bounds(b))
            for left, right in zip(self.cut(a, bounds), self.cut(b, bounds), strict=True):
                self.unify(left, right)

    def _unify_products(self, a: Segment, b: Segment) -> None:
        """Match two products from the outermost factor on, splitting leaves where sizes divide.

        (h4, d16) against (u64): u becomes (h, d). Against (k2, e32): h becomes (k2, r2), then e
        becomes (r, d). (a4, b6) against (c6, d4): neither size divides the other, both are fixed.
        """
        x, y = a[0], b[0]
        if len(a) == len(b) == 1:
            self.unite(x, y)
        elif len(a) == 1 and x.expr is None:
            self.refine(x, (b,))
        elif len(b) == 1 and y.expr is None:
            self.refine(y, (a,))
        elif x.size == y.size:
            self.unite(x, y)
            self.unify((a[1:],), (b[1:],))
        elif x.size % y.size == 0 and self._split_leaf(x, y.size):
            self.unify((a,), (b,))
        elif y.size % x.size == 0 and self._split_leaf(y, x.size):
            self.unify((a,), (b,))
        else:
            self.fix((a, b), _MISALIGNED)

    # -- shape -----------------------------------------------------------------------------

    def _split_leaf(self, leaf: Leaf, size: int) -> bool:
        """Let a leaf be a product with an outermost factor of `size`, if it is not a sum."""
        if leaf.expr is not None:
            return False
        # The finest that could be true: one order of the inner indices for each outer index (a
        # wreath product). Tensors that cannot see x take this dependence away later.
        outer = set(self.outer(leaf))
        x = self.leaf(size, outer)
        y = self.leaf(leaf.size // size, outer | {x})
        self.refine(leaf, ((x, y),))
        return True

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Write an axis as dimensions of these sizes, outermost first (a view)."""
        sizes = [int(size) for size in sizes]
        if len(sizes) == 1:
            return [axis]
        if not sizes:
            return []
        axis = self.resolve(axis)
        if len(axis) > 1:
            return self._split_sum(axis, sizes)
        found = self._take(axis[0], sizes[0])
        if found is None:
            return self._misaligned(axis, sizes)
        head, tail = found
        return [(head,), *self.split((tail,), sizes[1:])]

    def _take(self, factors: Segment, need: int) -> tuple[Segment, Segment] | None:
        """Cut a product after outer factors of total size `need`; None where that is impossible.

        A step takes the common divisor: 8 out of (12, 2) takes (4) of 12 = (4, 3), then 2 of the
        rest (3, 2), which has no factor of 2 outside: None.
        """
        head: list[Leaf] = []
        rest = list(factors)
        while need > 1:
            leaf = rest[0]
            common = math.gcd(leaf.size, need)
            if common == 1:
                return None
            if common < leaf.size:
                if not self._split_leaf(leaf, common):
                    return None
                rest = list(self.resolve((tuple(rest),))[0])
                continue
            head.append(rest.pop(0))
            need //= leaf.size
        return tuple(head), tuple(rest)

    def _split_sum(self, axis: Axis, sizes: list[int]) -> list[Axis]:
        """Split a concatenation into equal parts: a fixed index, and a leaf with a kid for each.

        q + k + v seen as (3, e): the index over the parts is fixed; a new leaf y of size e, which
        depends on it, has the kids q at 0, k at 1, v at 2, which a later `select` finds again.
        """
        n = sizes[0]
        size = sum(segment_size(segment) for segment in axis)
        if n == 1:
            return [UNIT, *self.split(axis, sizes[1:])]
        parts = self.cut(axis, [k * (size // n) for k in range(1, n)])
        key = self._key("parts", tuple(sizes))
        index = self.axis((*key, "index"), n, Reason("place in a concatenation"))
        if size == n:
            for part in parts:
                self.fix(part, Reason("place in a concatenation"))
            return [index, *([UNIT] * (len(sizes) - 1))]
        leaf = self.find(self.keyed(key, size // n))
        over = self.find(index[0][0])
        if leaf.expr is None and not leaf.kids and not leaf.outer and leaf.reason is None:
            # the first pass makes the kids; later passes find the leaf and only unify
            leaf.outer = {over}.union(
                *(self.outer(part) for p in parts for part in self.members(p))
            )
            leaf.outer.discard(leaf)
            leaf.kids[over] = {k: self.wrap(part) for k, part in enumerate(parts)}
            self.version += 1
        else:
            for k, part in enumerate(parts):
                self.unify(self.at(((leaf,),), over, k), part)
        return [index, *self.split(((leaf,),), sizes[1:])]

    def _misaligned(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """Fix an axis that cannot be split or cut into axes of these sizes; return fixed ones."""
        self.fix(axis, _MISALIGNED)
        return [
            self.axis(("misaligned", axis, tuple(sizes), i), size, _MISALIGNED)
            for i, size in enumerate(sizes)
        ]

    def merge(self, axes: Sequence[Axis]) -> Axis:
        """Write several dimensions as one (flatten)."""
        merged: list[Segment] = [()]
        for axis in axes:
            axis = self.resolve(axis)
            if len(axis) == 1:
                merged = [segment + axis[0] for segment in merged]
            elif merged == [()]:  # (a + b) p = a p + b p: a sum may stand outside,
                merged = list(axis)
            else:  # but h (a + b) is not h a + h b in row-major order: it hides in a leaf
                leaf = self.wrap(axis)
                merged = [(*segment, leaf) for segment in merged]
        return tuple(merged)

    def cut(self, axis: Axis, bounds: Sequence[int]) -> list[Axis]:
        """Cut an axis at these positions (slices, concatenations); its ends need no cut."""
        pieces: list[list[Segment]] = [[]]
        bounds = list(bounds)
        start = 0
        for segment in self.resolve(axis):
            stop = start + segment_size(segment)
            inside = [bound - start for bound in bounds if start < bound < stop]
            if start in bounds and start > 0:
                pieces.append([])
            parts = self._cut_segment(segment, inside) if inside else [(segment,)]
            pieces[-1].extend(parts[0])
            pieces.extend([list(part) for part in parts[1:]])
            start = stop
        return [tuple(piece) for piece in pieces]

    def _cut_segment(self, segment: Segment, offsets: list[int]) -> list[Axis]:
        """Cut a product: at the borders of its outer factor, or index by index."""
        # At a multiple of 36, (c, p36) is cut between channels: c becomes c1 + c2. Elsewhere the
        # cut goes through a channel: c is fixed and written out, p at 0, p at 1, ...
        first, rest = segment[0], segment[1:]
        inner = segment_size(rest)
        aligned = all(offset % inner == 0 for offset in offsets)
        depends = any(first in self.outer(leaf) for leaf in self.members((rest,)))
        if aligned and not depends:
            places = [0, *(offset // inner for offset in offsets), first.size]
            sizes = [b - a for a, b in itertools.pairwise(places)]
            outer = set(self.outer(first))
            parts = tuple((self.leaf(size, outer),) if size > 1 else () for size in sizes)
            self.refine(first, parts)
            return [(part + rest,) for part in parts]
        if first.size > EXPANSION_LIMIT:
            places = [0, *offsets, segment_size(segment)]
            return self._misaligned((segment,), [b - a for a, b in itertools.pairwise(places)])
        self.fix(((first,),), Reason("cut index by index"))
        whole = tuple(s for k in range(first.size) for s in self.at((rest,), first, k))
        return self.cut(whole, offsets)

    def pick(
        self, axes: Sequence[Axis | None], dim: int, k: int, reason: Reason
    ) -> list[Axis | None]:
        """Return the label of a tensor at index k of one dimension, and fix no more than that.

        Where nothing depends on the dimension, only index k itself is cut out of it.
        """
        chosen = axes[dim]
        if chosen is None or self.is_fixed(chosen):
            return self.restrict(axes, dim, k, reason)
        inside = self.members(chosen)
        for axis in axes:
            if axis is not None and any(self.outer(leaf) & inside for leaf in self.members(axis)):
                return self.restrict(axes, dim, k, reason)
        self.cut(chosen, [k, k + 1])
        return [axis for d, axis in enumerate(axes) if d != dim]

    def restrict(
        self, axes: Sequence[Axis | None], dim: int, k: int, reason: Reason
    ) -> list[Axis | None]:
        """Return the label of a tensor at index k of one dimension (select)."""
        chosen = axes[dim]
        others = [axis for d, axis in enumerate(axes) if d != dim]
        if chosen is None:
            return others
        self.fix(chosen, reason)
        chosen = self.resolve(chosen)
        if len(chosen) > 1 or any(leaf.expr is not None for leaf in chosen[0]):
            return others
        for leaf in reversed(chosen[0]):  # k in mixed radix, innermost digit first
            k, place = divmod(k, leaf.size)
            others = [a if a is None else self.at(a, self.find(leaf), place) for a in others]
        return others

    def view(
        self,
        axes: Sequence[Axis | None],
        old: Sequence[int],
        new: Sequence[int],
        key: Hashable,
    ) -> list[Axis | None]:
        """Return the label of a tensor of shape `old` seen in the shape `new`.

        A uniform dimension that is merged with others becomes a leaf that may depend on all.
        """
        found: list[Axis | None] = []
        i = j = 0
        while i < len(old) or j < len(new):
            # the shortest stretches of both shapes with equal products: (2, 3 | 4) and (6 | 2, 2)
            start_i, start_j = i, j
            have = need = 1
            while have != need or (i == start_i and j == start_j):
                if have <= need and i < len(old):
                    have *= old[i]
                    i += 1
                else:
                    need *= new[j]
                    j += 1
            found.extend(
                self._view_block(axes, slice(start_i, i), old, new[start_j:j], (key, start_i))
            )
        return found

    def _view_block(self, axes, span: slice, old, new, key) -> list[Axis | None]:
        """Merge a few dimensions and split them again."""
        pairs = zip(axes[span], old[span], strict=True)
        kept = [(axis, size) for axis, size in pairs if size != 1]
        sizes = [size for size in new if size != 1]
        if not kept or all(axis is None for axis, _ in kept):
            return [None if size != 1 else UNIT for size in new]
        if [size for _, size in kept] == sizes:
            parts = [axis for axis, _ in kept]
        else:
            filled = [
                self.axis((key, i), size, beside=axes) if axis is None else axis
                for i, (axis, size) in enumerate(kept)
            ]
            parts = self.split(self.merge(filled), sizes)
        rest = iter(parts)
        return [UNIT if size == 1 else next(rest) for size in new]

    # -- one operation over an index space -------------------------------------------------

    def join(self, *operands: Mapping[Any, Axis | None]) -> dict[Any, Axis | None]:
        """Unify operands and results role by role, and judge who may depend on whom.

        A *role* is one index of the operation (the m, k, n of a matrix product). A leaf at role p
        may depend on a leaf at role q only if every operand that has p has q as well: otherwise
        one operand would need to know an index that it does not have. An example: values
        v (s, h, e) and scores a (h, t, s) give y (t, h, e). Both that hold e hold h as well, so
        each head may order its e differently; with a bias (e,) all heads would order it alike.
        """
        axes: dict[Hashable, Axis | None] = {}
        for operand in operands:
            for role, axis in operand.items():
                if axes.get(role) is None:
                    axes[role] = axis
                else:
                    self.unify(axes[role], axis)
                    if axis is not None and len(axis) < len(axes[role]):
                        axes[role] = axis  # of equal fixed axes the one that others can depend on
        if self.observing:
            self._observe(operands, axes)
        return axes

    def _observe(self, operands, axes) -> None:
        """Drop every dependence that an operand cannot see.

        A leaf at role p sees an outer leaf in two ways: as a factor of its own product, (h, e),
        once and no more (in h h e one would not know which h is meant); or as the whole of another
        role that is in every operand that has p. There it must be a plain factor as well, not part
        of a sum, along which only some places have an index of it.
        """
        present = [{r for r, axis in operand.items() if axis is not None} for operand in operands]
        inside = {}
        for role, axis in axes.items():
            if axis is not None:
                resolved = self.resolve(axis)
                count = Counter(leaf for segment in resolved for leaf in segment)
                inside[role] = (count, len(resolved) == 1)
        for role, axis in axes.items():
            if axis is None:
                continue
            ends = [(leaf, around) for leaf, around in self.ends(axis) if leaf.outer]
            if not ends:
                continue
            having = [roles for roles in present if role in roles]
            shared = set.intersection(*having) - {role}
            seen = set.union(*having) - {role}
            for leaf, around in ends:
                for outer in list(self.outer(leaf)):
                    beside = around.count(outer)  # in the product that holds the leaf itself
                    places = [r for r in seen if inside[r][0][outer]]
                    if beside == 1:
                        continue
                    visible = (
                        beside == 0
                        and len(places) == 1
                        and places[0] in shared
                        and inside[places[0]][0][outer] == 1
                        and inside[places[0]][1]
                    )
                    if not visible:
                        self.drop(leaf, outer)

    def settle(self) -> None:
        """Keep dependence transitive and free of circles, so that the symmetries form a group.

        If x depends on y and y on z, the index of y that x is told has itself been moved by an
        order that depends on z: composed twice, x depends on z, so it must be allowed to. Two
        leaves that depend on each other could not be drawn one after the other.
        """
        before = -1
        while before != self.version:
            before = self.version
            for leaf in list(self.leaves):
                if leaf.parent is None and leaf.expr is None and leaf.reason is None:
                    self._settle_kids(leaf)
            for leaf in list(self.leaves):
                if leaf.parent is not None or leaf.expr is not None:
                    continue
                if leaf.reason is not None:
                    leaf.outer = set()
                    continue
                for outer in list(self.outer(leaf)):
                    beyond = set() if outer.reason is not None else self.outer(outer)
                    if outer.expr is not None or leaf in beyond or not beyond <= self.outer(leaf):
                        self.drop(leaf, outer)

    def _settle_kids(self, leaf: Leaf) -> None:
        """Let the part of a leaf at one index depend on nothing that the leaf does not know.

        Tensors hold the leaf, so nobody else observes its parts.
        """
        for over, kids in list(self.kids(leaf).items()):
            known = self.outer(leaf) - {over}
            for k, kid in list(kids.items()):
                allowed = self.members((tuple(self._kid(other, over, k) for other in known),))
                for part, around in list(self.ends(((kid,),))):
                    for outer in self.outer(part) - allowed - set(around):
                        self.drop(part, outer)


def _bounds(axis: Axis) -> set[int]:
    """Return the positions where one segment ends and the next begins."""
    return set(itertools.accumulate(map(segment_size, axis[:-1])))
