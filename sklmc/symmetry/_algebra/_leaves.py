"""Leaves and axes: what may be permuted together, told without any tensor.

A *leaf* is a set of indices that moves as one. An *axis* of a tensor is a sum of segments (a
concatenation); a *segment* is a product of leaves, outermost first (a flattened block). A leaf
can later turn out to be an axis itself, which then reaches every tensor that holds the leaf.

A leaf may have *outer* leaves: its permutation is then one per index of each of them (what lies
within a head, a group of channels, an expert). For an outer leaf that is fixed, `kids` holds the
leaf's part at one index, so that parts of a packed projection can become different things.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

Segment = tuple["Leaf", ...]
Axis = tuple[Segment, ...]
UNIT: Axis = ((),)  # an axis of size one


@dataclass(frozen=True)
class Reason:
    """Why something may not move: what, in which module, by which op, at which source line."""

    kind: str
    module: str = ""
    op: str = ""
    line: str = ""

    def __str__(self) -> str:
        where = f" in {self.module}" if self.module else ""
        what = f" ({self.op})" if self.op else ""
        return f"{self.kind}{where}{what}" + (f", {self.line}" if self.line else "")


class Leaf:
    """A set of indices; equal leaves point at one root through `parent`."""

    __slots__ = ("expr", "index", "kids", "outer", "parent", "reason", "size")

    def __init__(self, index: int, size: int):
        self.index = index
        self.size = size
        self.parent: Leaf | None = None
        self.reason: Reason | None = None
        self.expr: Axis | None = None
        self.outer: set[Leaf] = set()
        self.kids: dict[Leaf, dict[int, Leaf]] = {}

    def __repr__(self) -> str:
        return f"Leaf({self.index}, size={self.size})"


def segment_size(segment: Segment) -> int:
    """Return the number of indices of a product."""
    return math.prod(leaf.size for leaf in segment)


def axis_size(axis: Axis) -> int:
    """Return the number of indices of an axis."""
    return sum(segment_size(segment) for segment in axis)


class LeafStore:
    """All leaves of one net: equal, fixed, refined, dependent.

    Every operation only adds constraints, so an answer that is too careful is still a symmetry.
    `version` counts changes: a pass over the graph that leaves it as it was has proved, node by
    node, that the labels are consistent.
    """

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.version = 0
        self._memo: dict[Hashable, Leaf] = {}

    # -- making leaves ---------------------------------------------------------------------

    def leaf(self, size: int, outer=(), reason: Reason | None = None) -> Leaf:
        """Make a new leaf."""
        new = Leaf(len(self.leaves), size)
        new.outer = set(outer)
        new.reason = reason
        self.leaves.append(new)
        return new

    def keyed(self, key: Hashable, size: int, reason: Reason | None = None, beside=()) -> Leaf:
        """Return the leaf of this key, made on the first call: passes must not differ.

        It may depend on all leaves of the axes `beside` it.
        """
        if key not in self._memo:
            outer = {leaf for axis in beside if axis is not None for leaf in self.members(axis)}
            self._memo[key] = self.leaf(size, outer, reason)
        return self._memo[key]

    def axis(self, key: Hashable, size: int, reason: Reason | None = None, beside=()) -> Axis:
        """Return an axis of one leaf of this key (no leaf where the size is one)."""
        return UNIT if size == 1 else ((self.keyed(key, size, reason, beside),),)

    def wrap(self, axis: Axis) -> Leaf:
        """Return one leaf that stands for a whole axis."""
        axis = self.resolve(axis)
        if len(axis) == 1 and len(axis[0]) == 1:
            return axis[0][0]
        key = ("wrap", axis)
        if key not in self._memo:
            new = self.leaf(axis_size(axis))
            new.expr = axis
            self._memo[key] = new
        return self._memo[key]

    # -- reading ---------------------------------------------------------------------------

    def find(self, leaf: Leaf) -> Leaf:
        """Return the root that stands for a leaf."""
        root = leaf
        while root.parent is not None:
            root = root.parent
        while leaf.parent is not None:
            leaf.parent, leaf = root, leaf.parent
        return root

    def resolve(self, axis: Axis) -> Axis:
        """Write an axis in the finest leaves known.

        A sum stays hidden in its leaf where the leaf stands inside a product.
        """
        if len(axis) == 1 and len(axis[0]) == 1 and axis[0][0].parent is None:
            if axis[0][0].expr is None:
                return axis
        segments: list[Segment] = []
        for segment in axis:
            parts: list[Segment] = [()]
            for leaf in segment:
                leaf = self.find(leaf)
                inside = ((leaf,),) if leaf.expr is None else self.resolve(leaf.expr)
                if len(inside) == 1:
                    parts = [part + inside[0] for part in parts]
                elif parts == [()]:
                    parts = list(inside)
                else:
                    parts = [(*part, leaf) for part in parts]
            segments.extend(parts)
        return tuple(segments)

    def ends(self, axis: Axis) -> Iterator[tuple[Leaf, Segment]]:
        """Yield every finest leaf of an axis with the factors of the products that enclose it."""
        for segment in self.resolve(axis):
            yield from self._ends(segment, ())

    def _ends(self, segment: Segment, around: Segment) -> Iterator[tuple[Leaf, Segment]]:
        for leaf in segment:
            if leaf.expr is None:
                yield leaf, around + segment
            else:
                others = tuple(other for other in segment if other is not leaf)
                for inner in self.resolve(leaf.expr):
                    yield from self._ends(inner, around + others)

    def members(self, axis: Axis) -> set[Leaf]:
        """Return the finest leaves of an axis."""
        return {leaf for leaf, _ in self.ends(axis)}

    def outer(self, leaf: Leaf) -> set[Leaf]:
        """Return the finest leaves on whose index the permutation of a leaf may depend."""
        if not leaf.outer:
            return leaf.outer
        found = set()
        for other in leaf.outer:
            other = self.find(other)
            found |= {other} if other.expr is None else self.members(((other,),))
        found.discard(leaf)
        leaf.outer = found
        return found

    def is_fixed(self, axis: Axis | None) -> bool:
        """Say whether nothing on an axis can move."""
        return axis is not None and all(leaf.reason for leaf in self.members(axis))

    # -- changing --------------------------------------------------------------------------

    def fix(self, axis: Axis | None, reason: Reason) -> None:
        """Let nothing on an axis move."""
        for segment in axis or ():
            for leaf in segment:
                self._fix(self.find(leaf), reason)

    def _fix(self, leaf: Leaf, reason: Reason) -> None:
        if leaf.reason is not None:
            return
        leaf.reason = reason
        self.version += 1
        for kids in list(leaf.kids.values()):
            for kid in list(kids.values()):
                self._fix(self.find(kid), reason)
        if leaf.expr is not None:
            self.fix(leaf.expr, reason)

    def unite(self, a: Leaf, b: Leaf) -> None:
        """Let two leaves of equal size be one."""
        a, b = self.find(a), self.find(b)
        if a is b:
            return
        both = (a.expr, b.expr)
        if any(expr and self._holds(expr, other) for expr, other in zip(both, (b, a), strict=True)):
            reason = Reason("an axis would have to contain itself")
            self._fix(a, reason)
            self._fix(b, reason)
            return
        b.parent = a
        self.version += 1
        a.expr = a.expr or b.expr
        a.outer = (a.outer | b.outer) - {a, b}
        reason = a.reason or b.reason
        a_kids, b_kids = a.kids, b.kids
        a.kids = {}
        for kids in (a_kids, b_kids):
            for over, parts in kids.items():
                for k, kid in parts.items():
                    self._add_kid(a, over, k, kid)
        if reason is not None:
            a.reason = None
            self._fix(a, reason)
        self.unify(*both)

    def unify(self, a: Axis | None, b: Axis | None) -> None:
        """Let two axes be one (the algebra of products and sums is added by `Labels`)."""
        raise NotImplementedError

    def refine(self, leaf: Leaf, axis: Axis) -> None:
        """Let a leaf be a whole axis from now on."""
        if self._holds(axis, leaf):
            reason = Reason("an axis would have to contain itself")
            self.fix(axis, reason)
            self._fix(leaf, reason)
            return
        is_sum = len(self.resolve(axis)) > 1
        for other in self.leaves:
            if other.parent is None and other.outer and leaf in self.outer(other):
                if is_sum or self._kids(other, leaf):
                    self.drop(other, leaf)
        outer, kids = self.outer(leaf), leaf.kids
        leaf.expr = axis
        self.version += 1
        for part in self.members(axis):
            part.outer = (part.outer | outer) - {part, leaf}
        if leaf.reason is not None:
            self.fix(axis, leaf.reason)
        leaf.kids = {}
        for over, parts in kids.items():
            for k, kid in parts.items():
                self.unify(((kid,),), self.at(axis, self.find(over), k))

    def drop(self, leaf: Leaf, outer: Leaf) -> None:
        """Let a leaf's permutation be the same for all indices of an outer leaf."""
        leaf.outer = self.outer(leaf) - {outer}
        self.version += 1
        kids = self._kids(leaf, outer)
        leaf.kids.pop(outer, None)
        for kid in kids.values():
            self.unify(((leaf,),), ((kid,),))

    # -- the part at one index of a fixed outer leaf ---------------------------------------

    def at(self, axis: Axis, outer: Leaf, k: int) -> Axis:
        """Return an axis as it is at index k of a fixed outer leaf."""
        found: list[Segment] = []
        for segment in self.resolve(axis):
            factors = []
            for leaf in segment:
                if leaf.expr is not None:
                    factors.append(self.wrap(self.at(leaf.expr, outer, k)))
                else:
                    factors.append(self._kid(leaf, outer, k))
            found.append(tuple(factors))
        return tuple(found)

    def kids(self, leaf: Leaf) -> dict[Leaf, dict[int, Leaf]]:
        """Return the parts of a leaf that became things of their own, by outer leaf and index."""
        for over in list(leaf.kids):
            self._kids(leaf, self.find(over))
        return leaf.kids

    def _kids(self, leaf: Leaf, outer: Leaf) -> dict[int, Leaf]:
        for over in list(leaf.kids):
            if over is not outer and self.find(over) is outer:
                for k, kid in leaf.kids.pop(over).items():
                    self._add_kid(leaf, outer, k, kid)
        return leaf.kids.get(outer, {})

    def _add_kid(self, leaf: Leaf, over: Leaf, k: int, kid: Leaf) -> None:
        kids = leaf.kids.setdefault(self.find(over), {})
        if k in kids:
            self.unify(((kids[k],),), ((kid,),))
        else:
            kids[k] = kid

    def _kid(self, leaf: Leaf, outer: Leaf, k: int) -> Leaf:
        if leaf.reason is not None or outer not in self.outer(leaf):
            return leaf
        kids = self._kids(leaf, outer)
        if k not in kids:
            kid = self.leaf(leaf.size)
            leaf.kids.setdefault(outer, {})[k] = kid
            self.version += 1
            kid.outer = {self._kid(other, outer, k) for other in self.outer(leaf) - {outer}}
            self._cross_kids(leaf, outer, k, kid)
        return self.find(leaf.kids[outer][k])

    def _cross_kids(self, leaf: Leaf, outer: Leaf, k: int, kid: Leaf) -> None:
        """Let a new kid have the kids of its leaf along other leaves: picks may change places."""
        # y at (time 0) at (direction j) is y at (direction j) at (time 0)
        for over, parts in list(self.kids(leaf).items()):
            if over is not outer:
                for j, part in list(parts.items()):
                    crossed = self.wrap(self.at(((part,),), outer, k))
                    self._add_kid(kid, self._kid(self.find(over), outer, k), j, crossed)

    def _holds(self, axis: Axis, leaf: Leaf) -> bool:
        """Say whether a leaf occurs in an axis, at any depth."""
        for segment in axis:
            for other in segment:
                other = self.find(other)
                if other is leaf or (other.expr is not None and self._holds(other.expr, leaf)):
                    return True
        return False
