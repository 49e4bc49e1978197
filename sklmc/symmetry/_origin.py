"""Where a symmetry comes from, and whether another net with equal tensors has it as well."""

from __future__ import annotations

import types
from collections.abc import Hashable, Sequence

import torch
from torch import nn

from sklmc._torch import to_device
from sklmc.exceptions import ArchitectureMismatchError, TraceError
from sklmc.models import ModelView, run_module
from sklmc.symmetry._application import Mover
from sklmc.symmetry._graph import export_graph, trace_input
from sklmc.symmetry._group import PermutationGroup
from sklmc.symmetry._trial import Trial, dtype_of

_SETTINGS = (bool, int, float, str, types.NoneType, types.FunctionType)


class Origin:
    """The modules of the net that a symmetry was found on, and a sample to run other nets on.

    A net of the same modules with the same settings has the same forward pass. Any other is put
    to the test, once: its units are moved and its function must not change.
    """

    def __init__(self, module: nn.Module, sample: tuple[torch.Tensor, ...]):
        self.sample = sample
        self._dtype = dtype_of(module.parameters())
        self._known = {make_of(module)}

    def __getstate__(self) -> dict:
        return {**vars(self), "_known": set()}  # classes and functions may not travel

    def check(
        self, seen: ModelView, mover: Mover, groups: Sequence[PermutationGroup], X=None
    ) -> None:
        """Refuse a model whose function changes when its units move."""
        make = make_of(seen.original)
        if make in self._known:
            return
        dtype = dtype_of(seen.state.values())
        sample = self.sample if X is None else seen.sample(X)
        inputs = tuple(
            part.to(seen.device, dtype if part.dtype == self._dtype else part.dtype)
            for part in sample
        )
        _check_moved(seen, inputs, mover, groups)
        self._known.add(make)


class GraphOrigin:
    """The digest of a forward pass: all that a symmetry read from a dict knows of its net.

    A net whose traced forward pass has the same digest is the same net, in the eyes of the rules.
    Any other (also one that is traced with samples of another shape, or by another torch) is put
    to the test as by `Origin`. Where no sample is known, nothing can be said.
    """

    def __init__(self, graph_hash: str):
        self.graph_hash = graph_hash
        self._known: set[Hashable] = set()

    def __getstate__(self) -> dict:
        return {**vars(self), "_known": set()}

    def check(
        self, seen: ModelView, mover: Mover, groups: Sequence[PermutationGroup], X=None
    ) -> None:
        """Refuse a model with another forward pass whose function changes when its units move."""
        make = make_of(seen.original)
        if make in self._known:
            return
        try:
            sample = trace_input(seen.sample(X))
            if X is None:
                run_module(seen, sample)  # the width of a first layer is a guess at the input
        except ValueError:
            if X is None:
                return
            raise
        if not self._is_same(seen, sample):
            _check_moved(seen, to_device(sample, seen.device), mover, groups)
        self._known.add(make)

    def _is_same(self, seen: ModelView, sample: tuple) -> bool:
        """Say whether a model's forward pass has the digest."""
        try:
            graph = export_graph(
                seen.module, sample, training=False, caller="PermutationSymmetry.check"
            )
        except TraceError:
            return False
        return graph.hash == self.graph_hash


def _check_moved(
    seen: ModelView, inputs: tuple, mover: Mover, groups: Sequence[PermutationGroup]
) -> None:
    """Move all units of a model and refuse it if its function changes."""
    try:
        moved = Trial(seen.module, inputs, seen.state, {}).moved(mover, groups)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise _other(f"it does not take the samples that were used there ({error})") from error
    if moved.worst is not None:
        raise _other(
            f"its function changes when the units of group {moved.worst!r} move (relative "
            f"error {moved.error:.1e})"
        )


def make_of(module: nn.Module) -> Hashable:
    """Return what tells the forward pass of a module: classes and plain settings, by path."""
    return tuple(
        (
            path,
            type(part),
            frozenset(
                (name, value)
                for name, value in vars(part).items()
                if isinstance(value, _SETTINGS) and name != "training"
            ),
        )
        for path, part in module.named_modules()
    )


def _other(what: str) -> ArchitectureMismatchError:
    """Say that a model has another forward pass, and how that was seen."""
    return ArchitectureMismatchError(
        "PermutationSymmetry.check: the model has the tensors of the net that the symmetry was "
        f"found on, but another forward pass: {what}; use discover_symmetry on this model."
    )
