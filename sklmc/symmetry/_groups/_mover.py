"""Moving the entries of tensors: index arrays from permutations, without loops over units."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sklmc.symmetry._groups._blocks import Block, BlockAxis
from sklmc.symmetry._groups._group import PermutationGroup

LARGE = 2**20  # entries above which a matrix is moved in parts
CACHED = 2**18  # entries of such a part


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is moved: axis by axis where its axes move independently of each other."""

    groups: frozenset[str]  # the groups that move something in it
    axes: tuple[tuple[int, int], ...] | None  # (axis, number of its MovedAxis); None: by block
    at_once: bool = True  # False: a part at a time, by block or because it is large


@dataclass(frozen=True)
class MovedAxis:
    """What moves along an axis."""

    size: int
    parts: tuple[BlockAxis, ...]
    whole: str | None  # the group whose order is that of the axis

    @classmethod
    def of(cls, parts: Sequence[BlockAxis]) -> MovedAxis:
        """Put the parts of an axis together."""
        size = sum(axis.positions.size for axis in parts)
        factors, positions = parts[0].factors, parts[0].positions
        plain = len(parts) == len(factors) == 1 and np.array_equal(positions, np.arange(size))
        return cls(size, tuple(parts), factors[0] if plain else None)

    def index(self, groups, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return old positions by new positions; None where nothing moves."""
        if self.whole is not None:
            return arrays[self.whole].copy() if self.whole in arrays else None
        moving = [axis for axis in self.parts if not arrays.keys().isdisjoint(axis.factors)]
        if not moving:
            return None
        index = np.arange(self.size)
        for axis in moving:
            index[axis.positions] = old_positions((axis,), groups, arrays)[0]
        return index


class Mover:
    """Moves tensors by permutations; what can be prepared is prepared once.

    A permutation p of a group says for every new unit which old unit comes there. On an axis made
    of that group alone, new[i] = old[p[i]]; on an axis (h, d), whose old position is 16 h + d, the
    new entry (i, j) comes from (p_h[i], p_d[i, j]): inner arrays are indexed by *new* outer
    indices. So each axis has one array of old positions by new positions, of the axis's size, and
    a matrix is new[r, c] = old[rows[r], columns[c]]: two selections, one axis after the other,
    instead of one gather over all r and c.

    That fails where the order along one axis depends on the index of another (the weight
    ((g, o), i, k) of a grouped convolution: the order of i depends on g). Such a tensor is
    gathered block by block (`old_positions`), with index arrays that broadcast over all factors.

    Tensors that hold a group along equal axes share one index array: a net has many more axes than
    kinds of axes, and a proof moves it hundreds of times.
    """

    def __init__(self, blocks: Mapping[str, Sequence[Block]], groups: Sequence[PermutationGroup]):
        self.blocks = blocks
        self.groups = {group.name: group for group in groups}
        self._numbers: dict[Hashable, int] = {}
        self._axes: list[MovedAxis] = []
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
        aliases = aliases or {}
        indices: dict[torch.device, list[torch.Tensor | None]] = {}
        device = None
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            if name in aliases and aliases[name] in found:
                found[name] = found[aliases[name]]
                continue
            if tensor.device != device:
                device = tensor.device
                if device not in indices:
                    indices[device] = self._indices(arrays, device)
                along = indices[device]
            plan = self.plans[name]
            if plan.at_once:
                for dim, number in plan.axes:
                    index = along[number]
                    if index is not None:
                        tensor = tensor.index_select(dim, index)
                found[name] = tensor
            else:
                found[name] = self._by_parts(name, tensor, arrays, along)
        return found

    def tensor(self, name: str, tensor: torch.Tensor, arrays) -> torch.Tensor:
        """Return one tensor of the state with its units in their new places."""
        return self.state({name: tensor}, arrays)[name]

    def _by_parts(self, name: str, tensor: torch.Tensor, arrays, along) -> torch.Tensor:
        """Move a tensor block by block, or a large matrix some rows at a time."""
        plan = self.plans[name]
        if plan.groups.isdisjoint(arrays):
            return tensor
        if plan.axes is None:
            return _gather(tensor, self.blocks[name], self.groups, arrays)
        columns, rows = (along[number] for _, number in plan.axes)
        if rows is None:
            return tensor.index_select(1, columns)
        if columns is None:
            return tensor.index_select(0, rows)
        return _select_both(tensor, rows, columns)

    def _indices(self, arrays, device: torch.device) -> list[torch.Tensor | None]:
        """Return an index array for every kind of axis, None where nothing moves along it."""
        found = [axis.index(self.groups, arrays) for axis in self._axes]
        return [None if index is None else torch.from_numpy(index).to(device) for index in found]

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
                    return TensorPlan(moving, None, at_once=False)
            if any(name in moving for axis in parts.values() for name in axis.factors):
                axes.append((dim, self._number(list(parts.values()))))
        entries = sum(math.prod(axis.positions.size for axis in block.axes) for block in blocks)
        large_matrix = entries > LARGE and [dim for dim, _ in axes] == [1, 0]
        return TensorPlan(moving, tuple(axes), at_once=not large_matrix)

    def _depends_on_others(self, axis: BlockAxis) -> bool:
        """Say whether a permutation on this axis depends on an index of another axis."""
        return any(
            outer not in axis.factors
            for name in axis.factors
            if name in self.groups
            for outer in self.groups[name].within
        )

    def _number(self, parts: list[BlockAxis]) -> int:
        """Note what moves along an axis; equal axes have one number."""
        key = tuple(
            (axis.factors, axis.positions.shape, axis.positions.tobytes()) for axis in parts
        )
        if key not in self._numbers:
            self._numbers[key] = len(self._axes)
            self._axes.append(MovedAxis.of(parts))
        return self._numbers[key]


def _select_both(tensor: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Select along the first two axes, so many rows at a time as stay in the cache."""
    if tensor.device.type != "cpu" or tensor.requires_grad:
        return tensor.index_select(1, columns).index_select(0, rows)
    height = max(1, CACHED * len(tensor) // tensor.numel())
    new = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    for start in range(0, len(tensor), height):
        part = slice(start, start + height)
        torch.index_select(tensor.index_select(0, rows[part]), 1, columns, out=new[part])
    return new


def _gather(tensor: torch.Tensor, blocks, groups, arrays) -> torch.Tensor:
    """Move every block on its own: one index per entry and axis, broadcast."""
    new = tensor.clone()
    for block in blocks:
        target = _indices(old_positions(block.axes, groups, {}), tensor.device)
        source = _indices(old_positions(block.axes, groups, arrays), tensor.device)
        new[target] = tensor[source]
    return new


def old_positions(axes: Sequence[BlockAxis], groups, arrays) -> list[np.ndarray]:
    """Return the old positions of a block's new entries, one broadcasting array per axis.

    The arrays have one dimension per factor, axis after axis. What depends on an outer group finds
    its index on the same axis if it is there, otherwise on another: `axes` are all that it needs.
    """
    places = [(a, d) for a, axis in enumerate(axes) for d in range(len(axis.factors))]
    sizes = [axes[a].positions.shape[d] for a, d in places]
    grids = dict(zip(places, np.indices(sizes, sparse=True), strict=True))

    def index_of(name: str, near: int) -> np.ndarray:
        holding = [place for place in places if axes[place[0]].factors[place[1]] == name]
        return grids[min(holding, key=lambda place: place[0] != near)]

    found = []
    for a, axis in enumerate(axes):
        index = []
        for d, name in enumerate(axis.factors):
            if name in arrays and name in groups:
                around = tuple(index_of(outer, a) for outer in groups[name].within)
                index.append(arrays[name][(*around, grids[a, d])])
            else:
                index.append(grids[a, d])
        found.append(axis.positions[tuple(index)])
    return found


def _indices(arrays: list[np.ndarray], device) -> tuple[torch.Tensor, ...]:
    """Return index arrays as tensors."""
    return tuple(torch.from_numpy(array).to(device) for array in arrays)
