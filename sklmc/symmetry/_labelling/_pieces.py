"""Labelled tensors cut into pieces, and pieces with names: blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import Axis, Leaf
from sklmc.symmetry._groups._blocks import Block, BlockAxis

Piece = list[tuple[list[Leaf], np.ndarray]]  # per axis: factors and positions


def cut_into_pieces(labels: Labels, axes: tuple[Axis, ...]) -> list[Piece]:
    """Cut a labelled tensor into pieces whose axes are plain products of finest leaves."""
    sizes = [sum(math.prod(leaf.size for leaf in segment) for segment in axis) for axis in axes]
    whole = [
        _segments(labels, axis, np.arange(size)) for axis, size in zip(axes, sizes, strict=True)
    ]
    found: list[Piece] = []
    stack = [list(piece) for piece in itertools.product(*whole)][::-1]
    while stack:
        piece = stack.pop()
        finer = _cut_once(labels, piece)
        if finer is None:
            found.append(piece)
        else:
            stack.extend(finer[::-1])
    return found


def _segments(labels: Labels, axis: Axis, positions: np.ndarray) -> list:
    """Return factors and positions of every segment of an axis; fixed neighbours become one."""
    found, start = [], 0
    for segment in labels.resolve(axis):
        shape = tuple(leaf.size for leaf in segment)
        stop = start + math.prod(shape)
        found.append((list(segment), positions[start:stop].reshape(shape)))
        start = stop
    return found


def _cut_once(labels: Labels, piece: Piece) -> list[Piece] | None:
    """Open one hidden sum, or write out one fixed factor that others have kids for."""
    for a, (factors, _) in enumerate(piece):
        for d, leaf in enumerate(factors):
            inside = labels.resolve(((leaf,),))
            if inside != ((leaf,),):
                return _open(piece, a, d, inside)
    present = {leaf for factors, _ in piece for leaf in factors}
    for factors, _ in piece:
        for leaf in factors:
            for over, kids in labels.kids(leaf).items():
                if kids and over in present and over in labels.outer(leaf) and not leaf.reason:
                    return [_restricted(labels, piece, over, k) for k in range(over.size)]
    return None


def _open(piece: Piece, a: int, d: int, inside: Axis) -> list[Piece]:
    """Replace a factor by the segments that it stands for."""
    factors, positions = piece[a]
    found, start = [], 0
    for segment in inside:
        stop = start + math.prod(leaf.size for leaf in segment)
        chosen = positions[(slice(None),) * d + (slice(start, stop),)]
        shape = (*chosen.shape[:d], *(leaf.size for leaf in segment), *chosen.shape[d + 1 :])
        new = list(piece)
        new[a] = ([*factors[:d], *segment, *factors[d + 1 :]], chosen.reshape(shape))
        found.append(new)
        start = stop
    return found


def _restricted(labels: Labels, piece: Piece, over: Leaf, k: int) -> Piece:
    """Return a piece at index k of a fixed factor."""
    new: Piece = []
    for factors, positions in piece:
        kept: list[Leaf] = []
        for leaf in factors:
            if leaf is over:
                positions = positions.take(k, axis=len(kept))
            else:
                kept.append(labels.at(((leaf,),), over, k)[0][0])
        new.append((kept, positions))
    return new


def block_of(tensor: str, piece: Piece, names: dict[Leaf, str]) -> Block:
    """Turn a piece into a block, with names for what moves or is depended on."""
    axes = []
    for factors, positions in piece:
        named = [names.get(leaf) for leaf in factors]
        shape, kept = [], []
        for name, size in zip(named, positions.shape, strict=True):
            if name is None and kept and kept[-1] is None:
                shape[-1] *= size
            else:
                kept.append(name)
                shape.append(size)
        if not kept:
            kept, shape = [None], [1]
        axes.append(BlockAxis(positions.reshape(shape), tuple(kept)))
    return Block(tensor, tuple(axes))
