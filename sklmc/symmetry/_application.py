"""Moving the entries of tensors: index arrays from permutations, without loops over units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sklmc.symmetry._blocks import Block, BlockAxis
from sklmc.symmetry._group import PermutationGroup


def permuted(
    tensor: torch.Tensor,
    blocks: Sequence[Block],
    groups: Mapping[str, PermutationGroup],
    arrays: Mapping[str, np.ndarray],
) -> torch.Tensor:
    """Return a tensor with its units in their new places (itself where nothing moves).

    `arrays` may leave groups out: those do not move.
    """
    if not any(name in arrays for block in blocks for name in block.groups):
        return tensor
    maps = axis_maps(blocks, tensor.shape, groups, arrays)
    if maps is None:
        return _gather(tensor, blocks, groups, arrays)
    for dim, index in maps.items():
        index = torch.from_numpy(index).to(tensor.device)
        tensor = tensor.index_select(dim, index)
    return tensor


def axis_maps(
    blocks: Sequence[Block],
    shape: Sequence[int],
    groups: Mapping[str, PermutationGroup],
    arrays: Mapping[str, np.ndarray],
) -> dict[int, np.ndarray] | None:
    """Return old positions by new positions for each axis that moves.

    None where the axes do not move independently of each other: then the tensor has to be
    gathered block by block.
    """
    maps: dict[int, np.ndarray] = {}
    seen: dict[tuple, BlockAxis] = {}
    for block in blocks:
        for dim, axis in enumerate(block.axes):
            if _depends_on_others(axis, groups, arrays):
                return None
            key = (dim, int(axis.positions.min()))
            other = seen.setdefault(key, axis)
            if other is axis:
                if any(name in arrays for name in axis.factors):
                    index = maps.setdefault(dim, np.arange(shape[dim]))
                    index[axis.positions] = _source(axis, groups, arrays)
            elif other.factors != axis.factors or not np.array_equal(
                other.positions, axis.positions
            ):
                return None
    return maps


def _depends_on_others(axis: BlockAxis, groups, arrays) -> bool:
    """Say whether a permutation on this axis depends on an index of another axis."""
    return any(
        outer not in axis.factors
        for name in axis.factors
        if name in arrays and name in groups
        for outer in groups[name].within
    )


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
