"""Two groups that are truly one: channels on both sides of a zero-padded shortcut.

The algebra of segments keeps what is padded on the left apart from what is padded on the right.
Where both lie in the same places everywhere, they may be one group; the test decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from sklmc.symmetry._groups._blocks import (
    Block,
    BlockAxis,
    Structure,
    differing_axis,
    with_axis,
)
from sklmc.symmetry._groups._group import PermutationGroup


def fusions(structure: Structure, untested: Collection[str] = ()) -> Iterator[Structure]:
    """Yield structures in which two groups of this one have become one.

    Groups in `untested` stay as they are: no output would tell whether they are one.
    """
    outer = {name for group in structure.groups for name in group.within}
    apart = outer.union(untested)
    plain = [g for g in structure.groups if not g.within and g.name not in apart]
    for i, first in enumerate(plain):
        for second in plain[i + 1 :]:
            if set(first.places) == set(second.places):
                fused = _fused(structure, *sorted((first, second), key=lambda g: len(g.name)))
                if fused is not None:
                    yield fused


def _fused(
    structure: Structure, first: PermutationGroup, second: PermutationGroup
) -> Structure | None:
    """Return a structure with two groups joined; None where some tensor does not allow it."""
    size = first.size + second.size
    blocks = {}
    for tensor, found in structure.blocks.items():
        names = {name for block in found for name in block.groups}
        if not names & {first.name, second.name}:
            blocks[tensor] = found
            continue
        # units of the first group come before those of the second in every tensor
        ordered = sorted(found, key=lambda block: _factors_of(block, second.name))
        joined = _join([_renamed(block, first.name, second.name) for block in ordered], first.name)
        for block in joined:
            for axis in block.axes:
                for name, length in zip(axis.factors, axis.positions.shape, strict=True):
                    if name == first.name and length != size:
                        return None
        blocks[tensor] = tuple(joined)
    groups = tuple(
        replace(group, size=size) if group.name == first.name else group
        for group in structure.groups
        if group.name != second.name
    )
    return Structure(groups, blocks, structure.frozen)


def _factors_of(block: Block, name: str) -> list[bool]:
    """Say for every factor of a block whether it is this group."""
    return [factor == name for axis in block.axes for factor in axis.factors]


def _renamed(block: Block, name: str, other: str) -> Block:
    """Return a block in which one group bears the other's name."""
    axes = tuple(
        BlockAxis(axis.positions, tuple(name if f == other else f for f in axis.factors))
        for axis in block.axes
    )
    return Block(block.tensor, axes)


def _join(blocks: list[Block], name: str) -> list[Block]:
    """Join blocks that differ in one factor only, which is the joined group."""
    for i, first in enumerate(blocks):
        for j in range(i + 1, len(blocks)):
            joined = _joined(first, blocks[j], name)
            if joined is not None:
                rest = [block for k, block in enumerate(blocks) if k not in (i, j)]
                return _join([joined, *rest], name)
    return blocks


def _joined(first: Block, second: Block, name: str) -> Block | None:
    """Return the union of two blocks along the joined group, or None."""
    d = differing_axis(first, second)
    if d is None:
        return None
    x, y = first.axes[d], second.axes[d]
    if x.factors != y.factors or x.factors.count(name) != 1:
        return None
    along = x.factors.index(name)
    if np.delete(x.positions.shape, along).tolist() != np.delete(y.positions.shape, along).tolist():
        return None
    positions = np.concatenate([x.positions, y.positions], axis=along)
    return with_axis(first, d, BlockAxis(positions, x.factors))
