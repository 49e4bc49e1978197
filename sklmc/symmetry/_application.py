"""Moving the entries of tensors: index arrays from permutations, without loops over units."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sklmc.symmetry._blocks import Block, BlockAxis
from sklmc.symmetry._group import PermutationGroup

CACHED_BYTES = 2**18  # how much of a tensor is moved at a time


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is moved: axis by axis where its axes move independently of each other."""

    groups: frozenset[str]  # the groups that move something in it
    axes: tuple[tuple[int, Hashable], ...] | None  # (axis, what moves along it); None: by block


class Mover:
    """Moves tensors by permutations; what can be prepared is prepared once.

    Tensors that hold a group along equal axes share one index array.
    """

    def __init__(self, blocks: Mapping[str, Sequence[Block]], groups: Sequence[PermutationGroup]):
        self.blocks = blocks
        self.groups = {group.name: group for group in groups}
        self._along: dict[Hashable, tuple[int, list[BlockAxis]]] = {}
        self.plans = {name: self._plan(found) for name, found in blocks.items()}

    def state(
        self,
        state: Mapping[str, torch.Tensor],
        arrays: Mapping[str, np.ndarray],
        aliases: Mapping[str, str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return a state with some groups moved; `arrays` may leave groups out.

        A tensor in which nothing moves is returned as it is; tied tensors stay one.
        """
        indices: dict[Hashable, torch.Tensor] = {}
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            first = (aliases or {}).get(name, name)
            if first in found:
                found[name] = found[first]
            else:
                found[name] = self.tensor(name, tensor, arrays, indices)
        return found

    def tensor(self, name: str, tensor: torch.Tensor, arrays, indices=None) -> torch.Tensor:
        """Return one tensor of the state with its units in their new places."""
        plan = self.plans[name]
        if plan.groups.isdisjoint(arrays):
            return tensor
        if plan.axes is None:
            return _gather(tensor, self.blocks[name], self.groups, arrays)
        indices = {} if indices is None else indices
        moves = []
        for dim, key in plan.axes:
            if (key, tensor.device) not in indices:
                indices[key, tensor.device] = self._index(key, arrays, tensor.device)
            if indices[key, tensor.device] is not None:
                moves.append((dim, indices[key, tensor.device]))
        if [dim for dim, _ in moves] == [1, 0]:
            return _select_both(tensor, moves[1][1], moves[0][1])
        for dim, index in moves:
            tensor = tensor.index_select(dim, index)
        return tensor

    def _plan(self, blocks: Sequence[Block]) -> TensorPlan:
        """See whether the axes of a tensor move independently, and where which groups lie."""
        moving = frozenset(name for block in blocks for name in block.groups if name in self.groups)
        if not moving:
            return TensorPlan(moving, ())
        axes = []
        for dim in reversed(range(len(blocks[0].axes))):  # inner axes first: the cheaper order
            parts: dict[int, BlockAxis] = {}
            for block in blocks:
                axis = block.axes[dim]
                other = parts.setdefault(int(axis.positions.min()), axis)
                same = other is axis or (
                    other.factors == axis.factors
                    and np.array_equal(other.positions, axis.positions)
                )
                if not same or self._depends_on_others(axis):
                    return TensorPlan(moving, None)
            if any(name in moving for axis in parts.values() for name in axis.factors):
                axes.append((dim, self._key(list(parts.values()))))
        return TensorPlan(moving, tuple(axes))

    def _depends_on_others(self, axis: BlockAxis) -> bool:
        """Say whether a permutation on this axis depends on an index of another axis."""
        return any(
            outer not in axis.factors
            for name in axis.factors
            if name in self.groups
            for outer in self.groups[name].within
        )

    def _key(self, parts: list[BlockAxis]) -> Hashable:
        """Note what moves along an axis; equal axes have equal keys."""
        key = tuple(
            (axis.factors, axis.positions.shape, axis.positions.tobytes()) for axis in parts
        )
        self._along.setdefault(key, (sum(axis.positions.size for axis in parts), parts))
        return key

    def _index(self, key: Hashable, arrays, device) -> torch.Tensor | None:
        """Return old positions by new positions along an axis; None where nothing moves."""
        size, parts = self._along[key]
        index = np.arange(size)
        moved = False
        for axis in parts:
            if any(name in arrays for name in axis.factors):
                moved = True
                index[axis.positions] = _source(axis, self.groups, arrays)
        return torch.from_numpy(index).to(device) if moved else None


def _source(axis: BlockAxis, groups, arrays) -> np.ndarray:
    """Return the old position of every entry of a block axis that depends on no other axis."""
    sizes = axis.positions.shape
    grids = dict(enumerate(np.indices(sizes, sparse=True)))
    index = []
    for place, name in enumerate(axis.factors):
        if name in arrays and name in groups:
            around = tuple(grids[axis.factors.index(outer)] for outer in groups[name].within)
            index.append(arrays[name][(*around, grids[place])])
        else:
            index.append(grids[place])
    return axis.positions[tuple(index)]


def _select_both(tensor: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Select along the first two axes, so many rows at a time as stay in the cache."""
    height = max(1, CACHED_BYTES // max(1, tensor[0].numel() * tensor.element_size()))
    if height >= len(tensor) or tensor.device.type != "cpu" or tensor.requires_grad:
        return tensor.index_select(1, columns).index_select(0, rows)
    new = torch.empty(tensor.shape, dtype=tensor.dtype)
    for start in range(0, len(tensor), height):
        part = slice(start, start + height)
        torch.index_select(tensor.index_select(0, rows[part]), 1, columns, out=new[part])
    return new


def _gather(tensor: torch.Tensor, blocks, groups, arrays) -> torch.Tensor:
    """Move every block on its own: one index per entry and axis, broadcast."""
    new = tensor.clone()
    for block in blocks:
        target, source = block_index(block, groups, arrays)
        new[_indices(target, tensor.device)] = tensor[_indices(source, tensor.device)]
    return new


def block_index(block: Block, groups, arrays) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return new and old positions of a block's entries, one broadcasting array per tensor axis.

    The arrays have one dimension per factor, axis after axis.
    """
    places = [(a, d) for a, axis in enumerate(block.axes) for d in range(len(axis.factors))]
    sizes = [block.axes[a].positions.shape[d] for a, d in places]
    grids = dict(zip(places, np.indices(sizes, sparse=True), strict=True))
    target, source = [], []
    for a, axis in enumerate(block.axes):
        own = [grids[a, d] for d in range(len(axis.factors))]
        index = []
        for d, name in enumerate(axis.factors):
            if name in arrays and name in groups:
                around = tuple(grids[outer_place(block, a, outer)] for outer in groups[name].within)
                index.append(arrays[name][(*around, own[d])])
            else:
                index.append(own[d])
        target.append(axis.positions[tuple(own)])
        source.append(axis.positions[tuple(index)])
    return target, source


def outer_place(block: Block, a: int, outer: str) -> tuple[int, int]:
    """Return axis and factor of an outer group: on the same axis if it is there."""
    for b in (a, *(b for b in range(len(block.axes)) if b != a)):
        if outer in block.axes[b].factors:
            return b, block.axes[b].factors.index(outer)
    raise AssertionError(f"{outer} is not in a block of {block.tensor}")


def _indices(arrays: list[np.ndarray], device) -> tuple[torch.Tensor, ...]:
    """Return index arrays as tensors."""
    return tuple(torch.from_numpy(array).to(device) for array in arrays)
