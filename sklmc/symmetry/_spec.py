"""Symmetries as plain values that JSON can hold, and back."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np

from sklmc.exceptions import SymmetryError
from sklmc.symmetry._groups._blocks import Block, BlockAxis, FrozenAxis
from sklmc.symmetry._groups._group import (
    checksum,
    group_from_dict,
    group_to_dict,
    read_size,
    require,
)
from sklmc.symmetry._proof._origin import Origin

VERSION = 2  # version 1 had no checksum: a changed digit could not be told from a true one
_CALLER = "PermutationSymmetry.from_dict"
_RAW = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def symmetry_to_dict(symmetry) -> dict:
    """Return a symmetry as nested dicts, lists, strings and numbers, with their checksum."""
    spec = {
        "format": "sklmc.PermutationSymmetry",
        "version": VERSION,
        "groups": [group_to_dict(group) for group in symmetry.groups],
        "shapes": {name: list(shape) for name, shape in symmetry.shapes.items()},
        "blocks": {
            name: [[_axis_to_dict(axis) for axis in block.axes] for block in blocks]
            for name, blocks in symmetry.blocks.items()
        },
        "aliases": [list(names) for names in symmetry.aliases],
        "buffers": sorted(symmetry.buffers),
        "frozen": [vars(entry).copy() for entry in symmetry.frozen],
        "constants": dict(symmetry.constants),
        "graph_hash": symmetry.graph_hash,
        "evidence": copy.deepcopy(symmetry.evidence),
    }
    return {**spec, "checksum": checksum(spec)}


def arguments_from_dict(spec: Mapping) -> dict:
    """Return the constructor's arguments for a symmetry written by `symmetry_to_dict`."""
    if not isinstance(spec, Mapping) or spec.get("format") != "sklmc.PermutationSymmetry":
        raise SymmetryError(
            f"{_CALLER}: 'spec' is no symmetry written by to_dict; for git-re-basin's specs use "
            "from_axes_to_perm."
        )
    version = spec.get("version")
    if type(version) is not int or version != VERSION:
        raise SymmetryError(
            f"{_CALLER}: version {version!r} of the format of 'spec' is not known (this is version "
            f"{VERSION}; version 1 had no checksum); discover the symmetry again."
        )
    try:
        found = checksum({name: value for name, value in spec.items() if name != "checksum"})
    except (TypeError, ValueError, RecursionError) as error:
        raise _damaged(f"it holds more than plain values ({error})") from None
    if found != spec.get("checksum"):
        raise _damaged("its checksum is not that of its contents")
    try:
        arguments = _arguments(spec)
    except _RAW as error:
        raise _damaged(f"{type(error).__name__}: {error}") from None
    return arguments


def _arguments(spec: Mapping) -> dict:
    """Return the constructor's arguments; what is missing or does not fit raises any error."""
    shapes = {name: tuple(map(read_size, shape)) for name, shape in spec["shapes"].items()}
    groups = [group_from_dict(group) for group in spec["groups"]]
    blocks = {
        name: tuple(
            Block(
                name,
                tuple(
                    _axis_from_dict(axis, length)
                    for axis, length in zip(axes, shapes[name], strict=True)
                ),
            )
            for axes in found
        )
        for name, found in spec["blocks"].items()
    }
    _check_blocks(groups, blocks, shapes)
    aliases = tuple(tuple(names) for names in spec["aliases"])
    buffers = frozenset(spec["buffers"])
    require(buffers.union(*aliases) <= shapes.keys(), "a tied tensor or a buffer is unknown")
    frozen = tuple(FrozenAxis(**entry) for entry in spec["frozen"])
    kinds = (str, int, int, str, str, str)
    require(
        all(all(map(isinstance, vars(entry).values(), kinds)) for entry in frozen),
        "a frozen axis is not told by name, axis, size and reason",
    )
    constants, evidence, graph_hash = (spec[k] for k in ("constants", "evidence", "graph_hash"))
    require(all(isinstance(v, str) for v in constants.values()), "a constant has no digest")
    require(graph_hash is None or isinstance(graph_hash, str), "'graph_hash' is no text")
    require(evidence is None or isinstance(evidence, Mapping), "'evidence' is no mapping")
    return {
        "groups": groups,
        "blocks": blocks,
        "shapes": shapes,
        "aliases": aliases,
        "buffers": buffers,
        "frozen": frozen,
        "constants": dict(constants),
        "graph_hash": graph_hash,
        "evidence": evidence,
        "origin": None if graph_hash is None else Origin(graph_hash=graph_hash),
    }


def _check_blocks(groups, blocks: Mapping[str, tuple[Block, ...]], shapes: Mapping) -> None:
    """Refuse groups and blocks that contradict each other or the shapes of the tensors."""
    by_name = {group.name: group for group in groups}
    require(len(by_name) == len(groups), "two groups have one name")
    require(blocks.keys() == shapes.keys(), "blocks and shapes are of different tensors")
    places: dict[str, set[tuple[str, int]]] = {name: set() for name in by_name}
    for tensor, found in blocks.items():
        require(_is_covered(found, shapes[tensor]), f"the blocks of {tensor!r} do not cover it")
        for block in found:
            sizes: dict[str, int] = {}
            for dim, axis in enumerate(block.axes):
                for name, size in zip(axis.factors, axis.positions.shape, strict=True):
                    if name is not None:
                        require(sizes.setdefault(name, size) == size, f"{name!r} has two sizes")
                    if name in by_name:
                        places[name].add((tensor, dim))
            for group in (by_name[name] for name in sizes if name in by_name):
                require(sizes[group.name] == group.size, f"group {group.name!r} has two sizes")
                outer = tuple(sizes.get(name) for name in group.within)
                require(outer == group.outer_sizes, f"what {group.name!r} lies within differs")
    for group in groups:
        require(
            places[group.name] == set(group.places) and group.places,
            f"the places of group {group.name!r} are not where the blocks have it",
        )


def _is_covered(blocks: tuple[Block, ...], shape: tuple[int, ...]) -> bool:
    """Say whether the blocks of a tensor are disjoint and together all of it."""
    sizes = [math.prod(axis.positions.size for axis in block.axes) for block in blocks]
    if sum(sizes) != math.prod(shape):
        return False
    if len(blocks) == 1:  # axes hold each position once
        return True
    seen = np.zeros(shape, dtype=bool)
    for block in blocks:
        seen[np.ix_(*(axis.positions.ravel() for axis in block.axes))] = True
    return bool(seen.all())


def _damaged(what: str) -> SymmetryError:
    """Say that a spec is not what was written."""
    return SymmetryError(
        f"{_CALLER}: 'spec' is damaged or was changed after to_dict wrote it ({what}); read it "
        "from an intact copy, or discover the symmetry again."
    )


def _axis_to_dict(axis: BlockAxis) -> dict:
    """Return a block axis; evenly spaced positions as start and steps."""
    positions = axis.positions
    start = int(positions.flat[0])
    steps = [
        int(np.take(positions, 1, axis=d).flat[0]) - start if size > 1 else 0
        for d, size in enumerate(positions.shape)
    ]
    found: dict = {"factors": list(axis.factors), "shape": list(positions.shape)}
    if np.array_equal(positions, _evenly(start, steps, positions.shape)):
        return {**found, "start": start, "steps": steps}
    return {**found, "positions": positions.ravel().tolist()}


def _axis_from_dict(entry: Mapping, length: int) -> BlockAxis:
    """Return the block axis written by `_axis_to_dict`, on a tensor's axis of this length."""
    shape, factors = tuple(map(read_size, entry["shape"])), tuple(entry["factors"])
    require(math.prod(shape) <= length, "a block is larger than its tensor")
    require(len(shape) == len(factors), "a block has a factor without a size")
    require(all(f is None or isinstance(f, str) for f in factors), "a factor is no name")
    if "positions" in entry:
        positions = np.array(list(map(read_size, entry["positions"])), dtype=np.int64).reshape(
            shape
        )
    else:
        positions = _evenly(entry["start"], entry["steps"], shape)
    once = len(np.unique(positions)) == positions.size
    require(once, "a block holds a position twice")
    inside = (positions >= 0) & (positions < length)
    require(inside.all(), "a block reaches beyond its tensor")
    return BlockAxis(positions, factors)


def _evenly(start: int, steps: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return start + sum of steps times indices."""
    found = np.full(shape, start, dtype=np.int64)
    for grid, step in zip(np.indices(shape, sparse=True), steps, strict=True):
        found = found + grid * step
    return found
