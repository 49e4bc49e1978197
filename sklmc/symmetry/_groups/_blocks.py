"""Tensors cut into blocks: which entries of which tensor each group moves, and what is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sklmc.symmetry._groups._group import PermutationGroup

_FAILED = "failed verification"


@dataclass(frozen=True, eq=False)
class BlockAxis:
    """One axis of a tensor as a block sees it.

    Attributes
    ----------
    positions : ndarray of int, one dimension per factor, outermost first
        Where on the tensor's axis each combination of factor indices lies.
    factors : tuple of (str or None)
        The group that moves each factor; None where it does not move. A fixed factor on which
        another group's permutation depends has a name as well, which is no group.

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> symmetry = discover_symmetry(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    >>> [axis.factors for axis in symmetry.blocks["0.weight"][0].axes]
    [('0',), (None,)]
    """

    positions: np.ndarray
    factors: tuple[str | None, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether nothing moves along this axis."""
        return self.factors == (None,)


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a tensor whose axes are products of groups and fixed factors.

    The blocks of a tensor are disjoint and cover it. Where a group lies *within* others, their
    factors are found first on the same axis, otherwise on the only other axis that has them.

    Attributes
    ----------
    tensor : str
        Name in the state dict.
    axes : tuple of BlockAxis
        One for each axis of the tensor.

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> symmetry = discover_symmetry(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    >>> [block.groups for block in symmetry.blocks["2.weight"]]
    [('0',)]
    """

    tensor: str
    axes: tuple[BlockAxis, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of all named factors, each once, in order of axes."""
        names = (name for axis in self.axes for name in axis.factors if name is not None)
        return tuple(dict.fromkeys(names))


def join_factors(positions: np.ndarray, factors: Sequence[str | None]) -> BlockAxis:
    """Return the axis with these factors, of which neighbours that do not move become one."""
    shape, kept = [], []
    for name, size in zip(factors, positions.shape, strict=True):
        if name is None and kept and kept[-1] is None:
            shape[-1] *= size
        else:
            kept.append(name)
            shape.append(size)
    return BlockAxis(positions.reshape(shape or [1]), tuple(kept) or (None,))


def join_fixed(blocks: list[Block]) -> list[Block]:
    """Join blocks that differ on one axis only, on which neither moves."""
    joined: list[Block] = []
    for block in blocks:
        for place, other in enumerate(joined):
            d = differing_axis(other, block)
            if d is not None and other.axes[d].is_fixed and block.axes[d].is_fixed:
                both = [other.axes[d].positions, block.axes[d].positions]
                joined[place] = with_axis(
                    other, d, BlockAxis(np.sort(np.concatenate(both)), (None,))
                )
                break
        else:
            joined.append(block)
    return joined if len(joined) == len(blocks) else join_fixed(joined)


def differing_axis(a: Block, b: Block) -> int | None:
    """Return the one axis on which two blocks differ; None where it is none or several."""
    found = None
    for d, (x, y) in enumerate(zip(a.axes, b.axes, strict=True)):
        if x.factors != y.factors or not np.array_equal(x.positions, y.positions):
            if found is not None:
                return None
            found = d
    return found


def with_axis(block: Block, d: int, axis: BlockAxis) -> Block:
    """Return a block with another axis in one place."""
    return Block(block.tensor, (*block.axes[:d], axis, *block.axes[d + 1 :]))


@dataclass(frozen=True)
class FrozenAxis:
    """Part of a tensor's axis that may not be permuted.

    Attributes
    ----------
    tensor : str
        Name in the state dict.
    axis : int
        Axis of the tensor.
    size : int
        Number of indices that may not change places. Where whole blocks move (the channels of a
        flattened image), what is frozen are the places within one block: of an axis of 4
        channels with 36 positions each, 36.
    reason : str
        Why, with the operation and the source line where these are known.
    module : str
        Path of the module whose operation froze it; empty for the net itself.
    kind : str
        The reason without operation, module and line.

    Examples
    --------
    >>> from torch import nn
    >>> from sklmc.symmetry import discover_symmetry
    >>> symmetry = discover_symmetry(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)))
    >>> [(axis.tensor, axis.axis, axis.size) for axis in symmetry.frozen]
    [('0.weight', 1, 3), ('2.weight', 0, 2), ('2.bias', 0, 2)]
    """

    tensor: str
    axis: int
    size: int
    reason: str
    module: str = ""
    kind: str = ""


@dataclass
class Structure:
    """Groups, blocks and frozen axes of a net, before or after verification."""

    groups: tuple[PermutationGroup, ...]
    blocks: dict[str, tuple[Block, ...]]
    frozen: tuple[FrozenAxis, ...]

    def without(self, failed: Mapping[str, str]) -> Structure:
        """Return the structure with some groups frozen, each for its reason."""
        kept = tuple(group for group in self.groups if group.name not in failed)
        needed = {outer for group in kept for outer in group.within}
        frozen = list(self.frozen)
        for group in self.groups:
            if group.name in failed:
                frozen.extend(
                    FrozenAxis(
                        tensor,
                        axis,
                        len(_block_places(self.blocks[tensor], axis, group.name)),
                        failed[group.name],
                        kind=_FAILED,
                    )
                    for tensor, axis in group.places
                )
        blocks = {
            name: tuple(join_fixed([_frozen(b, set(failed) - needed) for b in blocks]))
            for name, blocks in self.blocks.items()
        }
        return Structure(kept, blocks, tuple(frozen))


def _block_places(blocks: tuple[Block, ...], dim: int, name: str) -> set[int]:
    """Return where the units of a group lie on an axis of a tensor, one place for each."""
    axes = [block.axes[dim] for block in blocks if name in block.axes[dim].factors]
    return {
        place
        for axis in axes
        for place in places_of(axis.positions, [factor == name for factor in axis.factors])
    }


def _frozen(block: Block, failed: set[str]) -> Block:
    """Return a block on which some groups do not move any more."""
    if not failed.intersection(block.groups):
        return block
    axes = (
        join_factors(axis.positions, [None if name in failed else name for name in axis.factors])
        for axis in block.axes
    )
    return Block(block.tensor, tuple(axes))


def places_of(positions: np.ndarray, chosen: list[bool]) -> list[int]:
    """Return the positions of all combinations of the chosen factors; the others stay at 0."""
    return positions[tuple(slice(None) if c else 0 for c in chosen)].ravel().tolist()
