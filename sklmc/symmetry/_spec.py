"""Symmetries as plain values: JSON, and git-re-basin's axes_to_perm."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np

from sklmc._validation import check_flag, check_mapping
from sklmc.exceptions import SymmetryError
from sklmc.symmetry._blocks import Block, BlockAxis
from sklmc.symmetry._extraction import FrozenAxis, Structure
from sklmc.symmetry._graph_origin import GraphOrigin
from sklmc.symmetry._group import PermutationGroup

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


def checksum(values: Mapping) -> str:
    """Return the SHA-256 of values as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
    shapes = {name: tuple(map(_count, shape)) for name, shape in spec["shapes"].items()}
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
    _check(buffers.union(*aliases) <= shapes.keys(), "a tied tensor or a buffer is unknown")
    frozen = tuple(FrozenAxis(**entry) for entry in spec["frozen"])
    kinds = (str, int, int, str, str, str)
    _check(
        all(all(map(isinstance, vars(entry).values(), kinds)) for entry in frozen),
        "a frozen axis is not told by name, axis, size and reason",
    )
    constants, evidence, graph_hash = (spec[k] for k in ("constants", "evidence", "graph_hash"))
    _check(all(isinstance(v, str) for v in constants.values()), "a constant has no digest")
    _check(graph_hash is None or isinstance(graph_hash, str), "'graph_hash' is no text")
    _check(evidence is None or isinstance(evidence, Mapping), "'evidence' is no mapping")
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
        "origin": None if graph_hash is None else GraphOrigin(graph_hash),
    }


def _check_blocks(groups, blocks: Mapping[str, tuple[Block, ...]], shapes: Mapping) -> None:
    """Refuse groups and blocks that contradict each other or the shapes of the tensors."""
    by_name = {group.name: group for group in groups}
    _check(len(by_name) == len(groups), "two groups have one name")
    _check(blocks.keys() == shapes.keys(), "blocks and shapes are of different tensors")
    places: dict[str, set[tuple[str, int]]] = {name: set() for name in by_name}
    for tensor, found in blocks.items():
        _check(_is_covered(found, shapes[tensor]), f"the blocks of {tensor!r} do not cover it")
        for block in found:
            sizes: dict[str, int] = {}
            for dim, axis in enumerate(block.axes):
                for name, size in zip(axis.factors, axis.positions.shape, strict=True):
                    if name is not None:
                        _check(sizes.setdefault(name, size) == size, f"{name!r} has two sizes")
                    if name in by_name:
                        places[name].add((tensor, dim))
            for group in (by_name[name] for name in sizes if name in by_name):
                _check(sizes[group.name] == group.size, f"group {group.name!r} has two sizes")
                outer = tuple(sizes.get(name) for name in group.within)
                _check(outer == group.outer_sizes, f"what {group.name!r} lies within differs")
    for group in groups:
        _check(
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


def _count(value) -> int:
    """Return a size; anything else is damage."""
    _check(type(value) is int and value >= 0, f"{value!r} is no size")
    return value


def _check(holds, what: str) -> None:
    """Raise where a part of a spec does not fit the others."""
    if not holds:
        raise ValueError(what)


def _damaged(what: str) -> SymmetryError:
    """Say that a spec is not what was written."""
    return SymmetryError(
        f"{_CALLER}: 'spec' is damaged or was changed after to_dict wrote it ({what}); read it "
        "from an intact copy, or discover the symmetry again."
    )


def group_to_dict(group: PermutationGroup) -> dict:
    """Return a group as plain values."""
    return {
        "name": group.name,
        "size": group.size,
        "within": list(group.within),
        "outer_sizes": list(group.outer_sizes),
        "places": [list(place) for place in group.places],
        "unobservable": list(group.unobservable),
    }


def group_from_dict(entry: Mapping) -> PermutationGroup:
    """Return the group written by `group_to_dict`; what does not fit raises any error."""
    group = PermutationGroup(
        entry["name"],
        _count(entry["size"]),
        tuple(entry["within"]),
        tuple(map(_count, entry["outer_sizes"])),
        tuple((tensor, _count(axis)) for tensor, axis in entry["places"]),
        tuple(entry["unobservable"]),
    )
    names = (group.name, *group.within, *group.unobservable, *(name for name, _ in group.places))
    _check(all(isinstance(name, str) for name in names), "a name is no text")
    _check(len(group.within) == len(group.outer_sizes), f"{group.name!r} lacks an outer size")
    return group


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
    shape, factors = tuple(map(_count, entry["shape"])), tuple(entry["factors"])
    _check(math.prod(shape) <= length, "a block is larger than its tensor")
    _check(len(shape) == len(factors), "a block has a factor without a size")
    _check(all(f is None or isinstance(f, str) for f in factors), "a factor is no name")
    if "positions" in entry:
        positions = np.array(list(map(_count, entry["positions"])), dtype=np.int64).reshape(shape)
    else:
        positions = _evenly(entry["start"], entry["steps"], shape)
    once = len(np.unique(positions)) == positions.size
    _check(once, "a block holds a position twice")
    inside = positions.size == 0 or (positions.min() >= 0 and positions.max() < length)
    _check(inside, "a block reaches beyond its tensor")
    return BlockAxis(positions, factors)


def _evenly(start: int, steps: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return start + sum of steps times indices."""
    found = np.full(shape, start, dtype=np.int64)
    for grid, step in zip(np.indices(shape, sparse=True), steps, strict=True):
        found = found + grid * step
    return found


def axes_to_perm(symmetry, lossy: bool) -> dict[str, tuple[str | None, ...]]:
    """Return one group name (or None) per axis of every tensor, where that says it all."""
    check_flag(lossy, "PermutationSymmetry.to_axes_to_perm", "lossy")
    names: dict[str, list[str | None]] = {}
    unsaid: dict[str, set[str]] = {}
    for tensor, blocks in symmetry.blocks.items():
        names[tensor] = []
        for dim in range(len(symmetry.shapes[tensor])):
            axes = [block.axes[dim] for block in blocks]
            groups = {f for axis in axes for f in axis.factors if f is not None}
            plain = len(axes) == 1 and len(axes[0].factors) == 1
            if plain and groups and not symmetry.group(next(iter(groups))).within:
                names[tensor].append(axes[0].factors[0])
                continue
            names[tensor].append(None)
            if groups:
                unsaid[f"{tensor}[{dim}]"] = groups
    if unsaid and not lossy:
        places = ", ".join(list(unsaid)[:10]) + (" ..." if len(unsaid) > 10 else "")
        raise SymmetryError(
            "PermutationSymmetry.to_axes_to_perm: the format has one whole group per axis and "
            f"cannot say what moves along {places} (heads, blocks, gates, concatenations); use "
            "to_dict, or lossy=True for the groups that it can say."
        )
    lost = set().union(*unsaid.values()) if unsaid else set()
    return {
        tensor: tuple(None if name in lost else name for name in found)
        for tensor, found in names.items()
    }


def structure_from_axes(
    spec: Mapping, shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, str]
) -> Structure:
    """Return groups and blocks of an axes_to_perm spec; sizes come from the tensors."""
    caller = "PermutationSymmetry.from_axes_to_perm"
    unknown = [name for name in check_mapping(spec, caller, "spec") if name not in shapes]
    if unknown:
        raise SymmetryError(
            f"{caller}: the model has no tensor {unknown[0]!r}, which is in 'spec'; names are "
            "those of its state_dict."
        )
    sizes: dict[str, tuple[int, str]] = {}
    places: dict[str, list[tuple[str, int]]] = {}
    blocks: dict[str, tuple[Block, ...]] = {}
    frozen = []
    for tensor, shape in shapes.items():
        names = spec.get(tensor, spec.get(aliases.get(tensor, tensor), (None,) * len(shape)))
        if len(names) != len(shape):
            raise SymmetryError(
                f"{caller}: {tensor!r} has {len(shape)} axes (shape {shape}), the spec gives it "
                f"{len(names)}: {tuple(names)!r}."
            )
        axes = []
        for dim, (name, size) in enumerate(zip(names, shape, strict=True)):
            axes.append(BlockAxis(np.arange(size), (name,)))
            if name is None:
                frozen.append(
                    FrozenAxis(tensor, dim, size, "not in the spec", kind="not in the spec")
                )
                continue
            known = sizes.setdefault(name, (size, f"{tensor}[{dim}]"))
            if known[0] != size:
                raise SymmetryError(
                    f"{caller}: group {name!r} has size {known[0]} at {known[1]} but {size} at "
                    f"{tensor}[{dim}]."
                )
            places.setdefault(name, []).append((tensor, dim))
        blocks[tensor] = (Block(tensor, tuple(axes)),)
    groups = tuple(
        PermutationGroup(name, size, places=tuple(places[name]))
        for name, (size, _) in sizes.items()
    )
    return Structure(groups, blocks, tuple(frozen))
