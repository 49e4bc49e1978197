"""Git-re-basin's dialect, axes_to_perm: a group name or None for every axis of every tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sklmc._validation import check_flag, check_mapping
from sklmc.exceptions import SymmetryError, TraceError
from sklmc.models import view
from sklmc.symmetry._groups._blocks import Block, BlockAxis, FrozenAxis, Structure
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._proof._proof import prove_structure
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._proof._runners import ModuleRunner
from sklmc.symmetry._proof._trial import Trial, own_change
from sklmc.symmetry._tracing._subject import Subject, settings_of

_CALLER = "PermutationSymmetry.from_axes_to_perm"


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


def claim_from_axes(spec: Mapping, model, X, verify: bool):
    """Return what a spec says of a model, tested: subject, structure, evidence and graph hash.

    A spec that is wrong is refused with the group that breaks it.
    """
    check_flag(verify, _CALLER, "verify")
    look = view(model, caller=_CALLER)
    with settings_of(look):
        subject = Subject(look, X, _CALLER)
        structure = _structure(spec, subject.shapes, subject.aliases)
        if not verify:
            return subject, structure, None, None
        prover, graph_hash = _prover_of(subject)
        structure, proof = prove_structure(prover, structure, _CALLER)
        if proof.failed:
            name, error = max(proof.failed.items(), key=lambda item: item[1])
            raise SymmetryError(
                f"{_CALLER}: the spec is wrong: moving the units of group {name!r} changes the "
                f"function (relative error {error:.1e}); all groups that fail: "
                f"{', '.join(map(repr, proof.failed))}. Compare with discover_symmetry(model, X)."
            )
        own = own_change(Trial.of(subject), structure, _CALLER)
        return subject, structure, proof.evidence(own), graph_hash


def _prover_of(subject: Subject) -> tuple[Prover, str | None]:
    """Return what tests a subject, and its graph's hash; untraceable modules run as they are."""
    try:
        graphs = subject.graphs()
    except TraceError:
        prover = Prover(subject, [])
        prover.add("eval", ModuleRunner(subject.module, prover.inputs))
        return prover, None
    return Prover(subject, graphs), graphs[0].hash


def _structure(
    spec: Mapping, shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, str]
) -> Structure:
    """Return groups and blocks of an axes_to_perm spec; sizes come from the tensors."""
    unknown = [name for name in check_mapping(spec, _CALLER, "spec") if name not in shapes]
    if unknown:
        raise SymmetryError(
            f"{_CALLER}: the model has no tensor {unknown[0]!r}, which is in 'spec'; names are "
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
                f"{_CALLER}: {tensor!r} has {len(shape)} axes (shape {shape}), the spec gives it "
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
                    f"{_CALLER}: group {name!r} has size {known[0]} at {known[1]} but {size} at "
                    f"{tensor}[{dim}]."
                )
            places.setdefault(name, []).append((tensor, dim))
        blocks[tensor] = (Block(tensor, tuple(axes)),)
    groups = tuple(
        PermutationGroup(name, size, places=tuple(places[name]))
        for name, (size, _) in sizes.items()
    )
    return Structure(groups, blocks, tuple(frozen))
