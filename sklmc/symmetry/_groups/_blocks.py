"""Tensors cut into blocks: which entries of which tensor each group moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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


def join_fixed(blocks: list[Block]) -> list[Block]:
    """Join blocks that differ on one axis only, on which neither moves."""
    joined: list[Block] = []
    for block in blocks:
        for place, other in enumerate(joined):
            merged = _joined(other, block)
            if merged is not None:
                joined[place] = merged
                break
        else:
            joined.append(block)
    return joined if len(joined) == len(blocks) else join_fixed(joined)


def _joined(a: Block, b: Block) -> Block | None:
    """Return the union of two blocks, or None where it is no block."""
    different = None
    for d, (x, y) in enumerate(zip(a.axes, b.axes, strict=True)):
        if x.factors == y.factors and np.array_equal(x.positions, y.positions):
            continue
        if different is not None or not (x.is_fixed and y.is_fixed):
            return None
        different = d
    if different is None:
        return None
    positions = np.concatenate([a.axes[different].positions, b.axes[different].positions])
    axes = list(a.axes)
    axes[different] = BlockAxis(np.sort(positions), (None,))
    return Block(a.tensor, tuple(axes))
