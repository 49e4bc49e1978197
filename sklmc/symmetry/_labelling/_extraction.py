"""From labels to what a user sees: groups with names, blocks, and what is frozen and why."""

from __future__ import annotations

from sklmc.symmetry._algebra._leaves import Leaf
from sklmc.symmetry._groups._blocks import join_fixed
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._structure import FrozenAxis, Structure, places_of
from sklmc.symmetry._labelling._pieces import Piece, block_of, cut_into_pieces
from sklmc.symmetry._labelling._walk import Labelling


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
    leaves = _moving_leaves(pieces)
    needed = {outer for leaf in leaves for outer in labels.outer(leaf)}
    names = _names(labels, pieces, leaves, needed)
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


def _moving_leaves(pieces) -> list[Leaf]:
    """Return all leaves that move, in order of tensors."""
    found: dict[Leaf, None] = {}
    for piece in (piece for parts in pieces.values() for piece in parts):
        for factors, _ in piece:
            for leaf in factors:
                if leaf.reason is None:
                    found.setdefault(leaf)
    return list(found)


def _in_data_flow(labels, leaves: list[Leaf], order: dict[Leaf, int]) -> list[Leaf]:
    """Sort leaves by the first result that carries them, outer leaves before what they hold."""
    found: dict[Leaf, None] = {}
    for leaf in sorted(leaves, key=lambda leaf: order.get(leaf, len(order))):
        outer = [other for other in labels.outer(leaf) if other.reason is None]
        for other in sorted(outer, key=lambda other: len(labels.outer(other))):
            found.setdefault(other)
        found.setdefault(leaf)
    return list(found)


def _names(labels, pieces, leaves: list[Leaf], needed: set[Leaf]) -> dict[Leaf, str]:
    """Name leaves by the module that first holds them; numbers tell equal names apart."""
    first: dict[Leaf, str] = {}
    for tensor, parts in pieces.items():
        for piece in parts:
            for factors, _ in piece:
                for leaf in factors:
                    first.setdefault(leaf, tensor)
    names: dict[Leaf, str] = {}
    taken: set[str] = set()
    wanted = [leaf for leaf in first if leaf in needed or leaf in set(leaves)]
    for leaf in sorted(wanted, key=lambda leaf: len(labels.outer(leaf)) > 0):
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
        labels.outer(leaf), key=lambda outer: (len(labels.outer(outer)), rank.get(outer, -1))
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
