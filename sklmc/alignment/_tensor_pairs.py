"""What a descent moves: tensors of A and B in the coordinates of a symmetry, one dim per factor."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import torch

CACHED_NUMBERS = 2**16  # how much of a product is summed at a time: stays in the cache


class TensorPair:
    """What A and B hold of some factors; `b` is B's side under the permutations applied so far."""

    def __init__(self, b: torch.Tensor, factors, groups):
        self.b, self.factors = b, tuple(factors)
        self.free = {name for name in self.factors if name in groups}

    def dims(self, group: str) -> list[int]:
        """Dims on which a group acts; two of them make the objective quadratic in it."""
        return [dim for dim, name in enumerate(self.factors) if name == group]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the products."""
        return self.b.dtype


class BlockPair(TensorPair):
    """One block of a tensor of A and of B, with one dim for every factor of the symmetry.

    `a` never changes; `b` is B's block under the permutations applied so far. `factors` names
    the group (or the fixed outer index set) of each dim, `axes` the tensor's axis that it is of.
    """

    correctable = True  # knows what a small move changes

    def __init__(self, a: torch.Tensor, b: torch.Tensor, factors, axes, groups):
        super().__init__(b, factors, groups)
        self.a, self.axes = a, tuple(axes)
        self._product: tuple[torch.Tensor, float] | None = None

    def outer_dims(self, dim: int, within: tuple[str, ...]) -> list[int]:
        """Dims of the indices that a permutation of `dim` depends on: its own axis' first."""
        return [
            min(self.dims(name), key=lambda d: (self.axes[d] != self.axes[dim], d))
            for name in within
        ]

    def permute(self, group: str, perm: torch.Tensor, within: tuple[str, ...]) -> None:
        """Move the entries of `b`: new index i of the group is old index ``perm[..., i]``."""
        for dim in self.dims(group):
            self.b = permute_dim(self.b, perm, [*self.outer_dims(dim, within), dim])

    def gram(self, group: str, within: tuple[str, ...]) -> torch.Tensor:
        """Return <a_i, b_j> over all other dims, of shape (*outer sizes, size, size).

        Where the group acts on several dims, one is varied at a time: the derivative of the
        inner product at the present permutation.
        """
        sides = (self._matrices([*self.outer_dims(d, within), d], 1) for d in self.dims(group))
        return reduce(torch.add, (left @ right.transpose(-1, -2) for left, right in sides))

    def gram_change(
        self, group: str, moved: str, index: torch.Tensor, before: torch.Tensor
    ) -> torch.Tensor:
        """Return what `gram` has gained since `b` was `before`: only `index` of `moved` differs.

        Both groups act on one dim each. The product runs over the entries that moved alone.
        """
        (own,) = self.dims(group)
        left, new, old = self._select_moved(moved, index, before)
        left, right = (t.movedim(own, 0).reshape(t.shape[own], -1) for t in (left, new - old))
        return left @ right.T

    def correct_product(self, moved: str, index: torch.Tensor, before: torch.Tensor) -> None:
        """Bring the inner product up to date, if it was known when `b` was `before`."""
        if self._product is not None and self._product[0] is before:
            left, new, old = (t.double() for t in self._select_moved(moved, index, before))
            self._product = self.b, self._product[1] + float(torch.sum(left * (new - old)))

    def _select_moved(self, moved: str, index: torch.Tensor, before: torch.Tensor):
        """Return the entries of A where something moved, and those of B after and before."""
        (dim,) = self.dims(moved)
        return tuple(t.index_select(dim, index) for t in (self.a, self.b, before))

    def nested_gram(self, group: str, child: str, lead: tuple[str, ...]) -> torch.Tensor:
        """Return <a_iu, b_jv> for units u, v of `child` within indices i, j of `group`.

        Its shape is (*lead sizes, size, size, child size, child size): for each i and j, the
        gain matrix of an assignment of the child's units.
        """
        (own,), (inner,) = self.dims(group), self.dims(child)
        left, right = self._matrices([*self.outer_dims(inner, lead), own, inner], 2)
        gram = left @ right.transpose(-1, -2)
        n, m = self.a.shape[own], self.a.shape[inner]
        return gram.reshape(*gram.shape[:-2], n, m, n, m).transpose(-3, -2)

    def _matrices(self, dims: list[int], n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both blocks as (*batch, rows, columns): the last `n_rows` of `dims` are rows."""
        order = [*dims, *(d for d in range(self.a.ndim) if d not in dims)]
        batch = [self.a.shape[d] for d in dims[: len(dims) - n_rows]]
        rows = int(np.prod([self.a.shape[d] for d in dims[len(dims) - n_rows :]]))
        return tuple(t.permute(order).reshape(*batch, rows, -1) for t in (self.a, self.b))

    def scale(self) -> float:
        """Return |a| |b|, the largest inner product that there could be."""
        norms = (torch.linalg.vector_norm(t, dtype=torch.float64) for t in (self.a, self.b))
        return float(next(norms) * next(norms))

    def inner_product(self) -> float:
        """Return <a, b>, summed in float64; computed again only after `b` has moved."""
        if self._product is None or self._product[0] is not self.b:
            self._product = self.b, _dot(self.a, self.b)
        return self._product[1]


class MomentPair(TensorPair):
    """How A's units go with B's on one axis of activations; stands beside `BlockPair`.

    `b` has the axis' factors twice, A's first: ``b[i, j]`` is the similarity of A's unit i and
    B's unit j under the permutations applied so far. The objective is its trace.
    """

    correctable = False  # its Gram matrices cost no products

    def __init__(self, moment: torch.Tensor, factors, groups):
        super().__init__(moment, factors, groups)
        self._letters = string.ascii_lowercase[: len(self.factors)]

    def permute(self, group: str, perm: torch.Tensor, within: tuple[str, ...]) -> None:
        """Move B's side: new index i of the group is old index ``perm[..., i]``."""
        places = [self.factors.index(name) for name in (*within, group)]
        self.b = permute_dim(self.b, perm, [len(self.factors) + place for place in places])

    def gram(self, group: str, within: tuple[str, ...]) -> torch.Tensor:
        """Return the similarity of the group's units, (*outer sizes, size, size)."""
        (own,) = self.dims(group)
        lead = "".join(self._letters[self.factors.index(name)] for name in within)
        return self._contract({own: "Y"}, f"{lead}{self._letters[own]}Y")

    def nested_gram(self, group: str, child: str, lead: tuple[str, ...]) -> torch.Tensor:
        """Return the similarity of the child's units for each pair of the group's indices."""
        (own,), (inner,) = self.dims(group), self.dims(child)
        outer = "".join(self._letters[self.factors.index(name)] for name in lead)
        i, u = self._letters[own], self._letters[inner]
        return self._contract({own: "Y", inner: "Z"}, f"{outer}{i}Y{u}Z")

    def inner_product(self) -> float:
        """Return the trace: the similarity of the units that stand opposite each other."""
        return float(self._contract({}, ""))

    def scale(self) -> float:
        """Return the size of the objective, for tolerances."""
        return float(self.b.norm())

    def _contract(self, free: dict[int, str], output: str) -> torch.Tensor:
        """Sum over equal indices of A and B, except on the dims in `free`.

        With factors (heads a, units b): the trace is ``abab->``, the gain matrix of heads
        ``abYb->aY``, that of units within each head ``abaY->abY``, and that of units for each pair
        of heads ``abYZ->aYbZ``. Capitals index B's side.
        """
        other = "".join(free.get(dim, letter) for dim, letter in enumerate(self._letters))
        return torch.einsum(f"{self._letters}{other}->{output}", self.b)


def permute_dim(tensor: torch.Tensor, perm: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """Reorder the last of `dims`: new index i is old index ``perm[..., i]``.

    The other dims hold the outer indices that the order depends on, as the leading axes of `perm`.
    """
    if perm.ndim == 1:
        return tensor.index_select(dims[-1], perm)
    shape = [1] * tensor.ndim
    for position, size in zip(dims, perm.shape, strict=True):
        shape[position] = size
    index = perm.permute(sorted(range(len(dims)), key=dims.__getitem__)).reshape(shape)
    return torch.take_along_dim(tensor, index, dims[-1])


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors, summed in float64."""
    a, b = a.reshape(-1), b.reshape(-1)
    if len(a) <= CACHED_NUMBERS:
        return float(torch.dot(a.double(), b.double()))
    parts = zip(a.split(CACHED_NUMBERS), b.split(CACHED_NUMBERS), strict=True)
    return float(sum(torch.dot(x.double(), y.double()) for x, y in parts))


def block_pairs(a: Mapping, b: Mapping, symmetry) -> list[BlockPair]:
    """Cut what a group permutes into blocks: tied tensors once, running statistics never."""
    skipped = set(symmetry.buffers)
    for names in symmetry.aliases:
        skipped.update(names[1:])
    groups = {group.name for group in symmetry.groups}
    pairs = []
    for name, blocks in symmetry.blocks.items():
        if name in skipped or not a[name].is_floating_point():
            continue
        for block in blocks:
            factors = [factor for axis in block.axes for factor in axis.factors]
            axes = [index for index, axis in enumerate(block.axes) for _ in axis.factors]
            if not groups.isdisjoint(factors):
                left, right = _cut(a[name], block), _cut(b[name], block)
                pairs.append(BlockPair(left, right, factors, axes, groups))
    return pairs


def _cut(tensor: torch.Tensor, block) -> torch.Tensor:
    """Return a block of a tensor with one dim per factor, in float32 or float64."""
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    shape = []
    for dim, axis in enumerate(block.axes):
        index = np.asarray(axis.positions).reshape(-1)
        if not np.array_equal(index, np.arange(tensor.shape[dim])):
            tensor = tensor.index_select(dim, torch.from_numpy(index).to(tensor.device))
        shape.extend(axis.positions.shape)
    return tensor.reshape(shape)
