"""From labels to what a user sees: groups with names, blocks, and what is frozen and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from sklmc.symmetry._algebra._labels import Labels
from sklmc.symmetry._algebra._leaves import Axis, Leaf, Segment, axis_size, segment_size
from sklmc.symmetry._groups._blocks import (
    Block,
    FrozenAxis,
    Structure,
    join_factors,
    join_fixed,
    places_of,
)
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._labelling._walk import Labelling

Piece = list[tuple[list[Leaf], np.ndarray]]  # per axis: factors and positions


def extract(labelling: Labelling) -> Structure:
    """Cut every tensor into blocks and name the leaves that move."""
    labels = labelling.labels
    before = -1
    while before != labels.version:  # writing out fixed factors may make new kids
        before = labels.version
        pieces = {
            name: [
                _shifted(piece, place)
                for place, part in tensor.pieces
                for piece in cut_into_pieces(labels, part.axes)
            ]
            for name, tensor in labelling.tensors.items()
        }
    first: dict[Leaf, str] = {}  # leaves in order of tensors, with the first that holds them
    for name, found in pieces.items():
        for leaf in (leaf for piece in found for factors, _ in piece for leaf in factors):
            first.setdefault(leaf, name)
    leaves = [leaf for leaf in first if leaf.reason is None]
    needed = {outer for leaf in leaves for outer in labels.outer(leaf)}
    names = _names(labels, {leaf: first[leaf] for leaf in first if leaf in needed.union(leaves)})
    blocks = {
        name: tuple(join_fixed([block_of(name, piece, names) for piece in found]))
        for name, found in pieces.items()
    }
    ordered = _in_data_flow(labels, leaves, labelling.order)
    groups = tuple(_group(labels, leaf, names, blocks, ordered) for leaf in ordered)
    return Structure(groups, blocks, _frozen_axes(pieces))


def _shifted(piece: Piece, place: int) -> Piece:
    """Return a piece of a part of a tensor with its rows where they lie in the whole."""
    if place == 0:
        return piece
    (factors, positions), *others = piece
    return [(factors, positions + place), *others]


def _in_data_flow(labels, leaves: list[Leaf], order: dict[Leaf, int]) -> list[Leaf]:
    """Sort leaves by the first result that carries them, outer leaves before what they hold."""
    found: dict[Leaf, None] = {}
    for leaf in sorted(leaves, key=lambda leaf: order.get(leaf, len(order))):
        outer = [other for other in labels.outer(leaf) if other.reason is None]
        for other in sorted(outer, key=lambda other: (len(labels.outer(other)), other.index)):
            found.setdefault(other)
        found.setdefault(leaf)
    return list(found)


def _names(labels, first: dict[Leaf, str]) -> dict[Leaf, str]:
    """Name leaves by the module that first holds them; numbers tell equal names apart."""
    names: dict[Leaf, str] = {}
    taken: set[str] = set()
    for leaf in sorted(first, key=lambda leaf: bool(labels.outer(leaf))):
        base = owner(first[leaf])
        if leaf.reason is not None:
            base += ":fixed"
        elif any(outer in names for outer in labels.outer(leaf)):
            base += ":within"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}#{number}"
        taken.add(name)
        names[leaf] = name
    return names


def owner(tensor: str) -> str:
    """Return the name of what a tensor belongs to: '1.weight' is of '1'."""
    path, _, last = tensor.rpartition(".")
    for ending in ("_weight", "_bias"):
        if last.endswith(ending):
            last = last.removesuffix(ending)
            return f"{path}.{last}" if path else last
    if path and (last in ("weight", "bias") or last.startswith(("weight_", "bias_"))):
        return path
    return tensor


def _group(labels, leaf: Leaf, names, blocks, ordered: list[Leaf]) -> PermutationGroup:
    """Describe one leaf that moves."""
    rank = {other: place for place, other in enumerate(ordered)}
    within = sorted(
        labels.outer(leaf),
        key=lambda outer: (len(labels.outer(outer)), rank.get(outer, -1), outer.index),
    )
    places = dict.fromkeys(
        (tensor, dim)
        for tensor, parts in blocks.items()
        for block in parts
        for dim, axis in enumerate(block.axes)
        if names[leaf] in axis.factors
    )
    return PermutationGroup(
        names[leaf],
        leaf.size,
        tuple(names[outer] for outer in within),
        tuple(outer.size for outer in within),
        tuple(places),
    )


def _frozen_axes(pieces) -> tuple[FrozenAxis, ...]:
    """List what may not move, tensor by tensor, with the reason."""
    found: dict[tuple, set] = {}
    for tensor, parts in pieces.items():
        for piece in parts:
            for dim, (factors, positions) in enumerate(piece):
                for reason in dict.fromkeys(leaf.reason for leaf in factors if leaf.reason):
                    frozen = places_of(positions, [leaf.reason == reason for leaf in factors])
                    found.setdefault((tensor, dim, reason), set()).update(frozen)
    return tuple(
        FrozenAxis(tensor, dim, len(places), str(reason), reason.module, reason.kind)
        for (tensor, dim, reason), places in found.items()
    )


def cut_into_pieces(labels: Labels, axes: tuple[Axis, ...]) -> list[Piece]:
    """Cut a labelled tensor into pieces whose axes are plain products of finest leaves."""
    whole = [
        [(list(segment), places) for segment, places in _opened(np.arange(size), 0, axis)]
        for axis, size in ((labels.resolve(axis), axis_size(axis)) for axis in axes)
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


def _opened(positions: np.ndarray, d: int, axis: Axis) -> Iterator[tuple[Segment, np.ndarray]]:
    """Yield the segments of an axis, which is one factor of some positions, with theirs."""
    start = 0
    for segment in axis:
        stop = start + segment_size(segment)
        chosen = positions[(slice(None),) * d + (slice(start, stop),)]
        shape = (*chosen.shape[:d], *(leaf.size for leaf in segment), *chosen.shape[d + 1 :])
        yield segment, chosen.reshape(shape)
        start = stop


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
    return [
        [*piece[:a], ([*factors[:d], *segment, *factors[d + 1 :]], chosen), *piece[a + 1 :]]
        for segment, chosen in _opened(positions, d, inside)
    ]


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
    axes = (
        join_factors(positions, [names.get(leaf) for leaf in factors])
        for factors, positions in piece
    )
    return Block(tensor, tuple(axes))
