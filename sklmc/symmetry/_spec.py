"""Symmetries as plain values: JSON, and git-re-basin's axes_to_perm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sklmc._validation import check_mapping
from sklmc.exceptions import SymmetryError
from sklmc.symmetry._blocks import Block, BlockAxis
from sklmc.symmetry._extraction import FrozenAxis, Structure
from sklmc.symmetry._group import PermutationGroup

VERSION = 1


def symmetry_to_dict(symmetry) -> dict:
    """Return a symmetry as nested dicts, lists, strings and numbers."""
    return {
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
        "evidence": symmetry.evidence,
    }


def arguments_from_dict(spec: Mapping) -> dict:
    """Return the constructor's arguments for a symmetry written by `symmetry_to_dict`."""
    if not isinstance(spec, Mapping) or spec.get("format") != "sklmc.PermutationSymmetry":
        raise ValueError(
            "PermutationSymmetry.from_dict: 'spec' is no symmetry written by to_dict; for "
            "git-re-basin's specs use from_axes_to_perm."
        )
    if spec["version"] != VERSION:
        raise ValueError(
            f"PermutationSymmetry.from_dict: version {spec['version']!r} of the format is not "
            f"known (this is version {VERSION}); discover the symmetry again."
        )
    return {
        "groups": [group_from_dict(group) for group in spec["groups"]],
        "blocks": {
            name: tuple(
                Block(name, tuple(_axis_from_dict(axis) for axis in axes)) for axes in blocks
            )
            for name, blocks in spec["blocks"].items()
        },
        "shapes": {name: tuple(shape) for name, shape in spec["shapes"].items()},
        "aliases": tuple(tuple(names) for names in spec["aliases"]),
        "buffers": frozenset(spec["buffers"]),
        "frozen": tuple(FrozenAxis(**entry) for entry in spec["frozen"]),
        "constants": dict(spec["constants"]),
        "graph_hash": spec["graph_hash"],
        "evidence": spec["evidence"],
    }


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
    """Return the group written by `group_to_dict`."""
    return PermutationGroup(
        entry["name"],
        entry["size"],
        tuple(entry["within"]),
        tuple(entry["outer_sizes"]),
        tuple((tensor, axis) for tensor, axis in entry["places"]),
        tuple(entry["unobservable"]),
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


def _axis_from_dict(entry: Mapping) -> BlockAxis:
    """Return the block axis written by `_axis_to_dict`."""
    shape = tuple(entry["shape"])
    if "positions" in entry:
        positions = np.array(entry["positions"], dtype=np.int64).reshape(shape)
    else:
        positions = _evenly(entry["start"], entry["steps"], shape)
    return BlockAxis(positions, tuple(entry["factors"]))


def _evenly(start: int, steps: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return start + sum of steps times indices."""
    found = np.full(shape, start, dtype=np.int64)
    for grid, step in zip(np.indices(shape, sparse=True), steps, strict=True):
        found = found + grid * step
    return found


def axes_to_perm(symmetry, lossy: bool) -> dict[str, tuple[str | None, ...]]:
    """Return one group name (or None) per axis of every tensor, where that says it all."""
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
