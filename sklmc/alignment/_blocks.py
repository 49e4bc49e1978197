"""Pairs of tensors in the coordinates of a symmetry: one tensor dim per factor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


class BlockPair:
    """One block of a tensor of A and of B, with one dim for every factor of the symmetry.

    `a` never changes; `b` is B's block under the permutations applied so far.
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, factors: tuple[str | None, ...]):
        self.a, self.b, self.factors = a, b, factors

    @property
    def free(self) -> set[str]:
        """Names of the groups that move entries of this block."""
        return {name for name in self.factors if name is not None}

    def dims(self, group: str) -> list[int]:
        """Dims on which a group acts; two of them make the objective quadratic in it."""
        return [dim for dim, name in enumerate(self.factors) if name == group]

    def permute(self, group: str, perm: torch.Tensor, within: tuple[str, ...]) -> None:
        """Move the entries of `b`: new index i of the group is old index ``perm[..., i]``."""
        for dim in self.dims(group):
            self.b = permuted(self.b, self.factors, dim, perm, within)

    def gram(self, group: str, within: tuple[str, ...]) -> torch.Tensor:
        """Return <a_i, b_j> over all other dims, of shape (*outer sizes, size, size).

        Where the group acts on several dims, one is varied at a time: the derivative of the
        inner product at the present permutation.
        """
        total = None
        for dim in self.dims(group):
            part = _gram(self.a, self.b, self.factors, dim, within)
            total = part if total is None else total + part
        return total

    def nested_gram(self, group: str, child: str, lead: tuple[str, ...]) -> torch.Tensor:
        """Return <a_iu, b_jv> for units u, v of `child` within indices i, j of `group`.

        Its shape is (*lead sizes, size, size, child size, child size): for each i and j, the
        gain matrix of an assignment of the child's units.
        """
        outer = [self.factors.index(name) for name in lead]
        own = [self.factors.index(group), self.factors.index(child)]
        rest = [d for d in range(self.a.ndim) if d not in (*outer, *own)]
        left = self.a.permute([*outer, *own, *rest])
        right = self.b.permute([*outer, *own, *rest])
        sizes, (n, m) = left.shape[: len(outer)], left.shape[len(outer) : len(outer) + 2]
        gram = left.reshape(*sizes, n * m, -1) @ right.reshape(*sizes, n * m, -1).transpose(-1, -2)
        return gram.reshape(*sizes, n, m, n, m).transpose(-3, -2)

    def inner_product(self) -> float:
        """Return <a, b>, summed in float64."""
        return float(torch.sum(self.a.double() * self.b.double()))


def block_pairs(a: Mapping, b: Mapping, symmetry) -> list[BlockPair]:
    """Cut what a group permutes into blocks: tied tensors once, running statistics never."""
    skipped = set(symmetry.buffers)
    for names in symmetry.aliases:
        skipped.update(names[1:])
    pairs = []
    for name, blocks in symmetry.blocks.items():
        if name in skipped or not a[name].is_floating_point():
            continue
        for block in blocks:
            factors = tuple(factor for axis in block.axes for factor in axis.factors)
            if any(factor is not None for factor in factors):
                pairs.append(BlockPair(_cut(a[name], block), _cut(b[name], block), factors))
    return pairs


def permuted(tensor, factors, dim: int, perm: torch.Tensor, within: tuple[str, ...]):
    """Permute one dim of a block; `perm` may depend on the indices of the dims in `within`."""
    if perm.ndim == 1:
        return tensor.index_select(dim, perm)
    outer = [factors.index(name) for name in within]
    # bring perm's dims into the order of the block's, size 1 elsewhere
    order = sorted(range(len(outer) + 1), key=[*outer, dim].__getitem__)
    shape = [1] * tensor.ndim
    for position, size in zip([*outer, dim], perm.shape, strict=True):
        shape[position] = size
    return torch.take_along_dim(tensor, perm.permute(order).reshape(shape), dim)


def _gram(a, b, factors, dim: int, within: tuple[str, ...]) -> torch.Tensor:
    """Contract every dim but `dim` and the outer ones: (*outer sizes, size, size)."""
    outer = [factors.index(name) for name in within]
    rest = [d for d in range(a.ndim) if d != dim and d not in outer]
    order = [*outer, dim, *rest]
    lead = [a.shape[d] for d in (*outer, dim)]
    left = a.permute(order).reshape(*lead, -1)
    right = b.permute(order).reshape(*lead, -1)
    return left @ right.transpose(-1, -2)


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
