"""What is known of a net's symmetry: groups, blocks, and what is frozen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sklmc.symmetry._groups._blocks import Block, BlockAxis, join_fixed
from sklmc.symmetry._groups._group import PermutationGroup

_FAILED = "failed verification"


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

    def with_groups(self, new: Mapping[str, PermutationGroup]) -> Structure:
        """Return the structure with some groups replaced by others of their name and places."""
        groups = tuple(new.get(group.name, group) for group in self.groups)
        return Structure(groups, self.blocks, self.frozen)

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
    axes = []
    for axis in block.axes:
        shape, kept = [], []
        for name, size in zip(axis.factors, axis.positions.shape, strict=True):
            name = None if name in failed else name
            if name is None and kept and kept[-1] is None:
                shape[-1] *= size
            else:
                kept.append(name)
                shape.append(size)
        axes.append(BlockAxis(axis.positions.reshape(shape), tuple(kept)))
    return Block(block.tensor, tuple(axes))


def places_of(positions: np.ndarray, chosen: list[bool]) -> list[int]:
    """Return the positions of all combinations of the chosen factors; the others stay at 0."""
    return positions[tuple(slice(None) if c else 0 for c in chosen)].ravel().tolist()
