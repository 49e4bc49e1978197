"""Where a symmetry comes from, and whether another net with equal tensors has it as well."""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import nn

from sklmc.exceptions import ArchitectureMismatchError, TraceError
from sklmc.models import OF_EVERY_MODULE, PROVENANCE, ModelView, Unreadable, fingerprint, run_module
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._trial import Trial
from sklmc.symmetry._tracing._export import export_graph, trace_input
from sklmc.symmetry._tracing._subject import dtype_of, settings_of

_PLAIN = (bool, int, float, str, types.NoneType, types.FunctionType)
_CONTAINERS = (dict, list, tuple, set)
_NO_SETTINGS = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}


class Origin:
    """What a symmetry was found on, and whether another net has the same forward pass.

    Known are the modules of the net, with a sample to run other nets on; or, read from a file, the
    digest of the traced forward pass alone. A net of the same modules with the same settings, or
    with the same digest, is the same net to the rules. Any other (also one that is traced with
    samples of another shape, or by another torch) is put to the test, once: its units are moved and
    its function must not change. Where no sample is known, nothing can be said.
    """

    def __init__(
        self,
        module: nn.Module | None = None,
        sample: tuple[torch.Tensor, ...] | None = None,
        graph_hash: str | None = None,
    ):
        self.sample = sample
        self.graph_hash = graph_hash
        self._dtype = None if module is None else dtype_of(module.parameters())
        self._known = set() if module is None else {make_of(module)}

    def __getstate__(self) -> dict:
        return {**vars(self), "_known": set()}  # classes and functions may not travel

    def check(
        self, seen: ModelView, mover: Mover, groups: Sequence[PermutationGroup], X=None
    ) -> None:
        """Refuse a model with another forward pass whose function changes when its units move."""
        make = make_of(seen.original)
        if make is not None and make in self._known:
            return
        sample = _own_sample(seen, X) if self.sample is None else self.sample
        if sample is None:
            return
        if self.graph_hash is None or _graph_hash(seen, sample) != self.graph_hash:
            self._try(seen, sample, mover, groups)
        self._known.add(make)

    def _try(self, seen: ModelView, sample: tuple, mover: Mover, groups) -> None:
        """Move the units of a model, in its own dtype, and refuse it where its function changes."""
        dtype = dtype_of(seen.state.values())
        with settings_of(seen):
            inputs = tuple(
                part.to(seen.device, dtype if part.dtype == self._dtype else part.dtype)
                for part in sample
            )
            try:
                run_module(seen, inputs)
                moved = Trial(seen.module, inputs, seen.state, {}).moved(mover, groups)
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise _other(
                    f"it does not take the samples that were used there ({error})"
                ) from error
        if moved.worst is not None:
            raise _other(
                f"its function changes when the units of group {moved.worst!r} move (relative "
                f"error {moved.error:.1e})"
            )


def _own_sample(seen: ModelView, X) -> tuple | None:
    """Return a sample that a model takes; None where no shape is known, or a guess was wrong."""
    try:
        sample = trace_input(seen.sample(X))
        run_module(seen, sample)
    except ValueError:
        if X is None:  # the width of a first layer does not tell all
            return None
        raise
    return sample


def _graph_hash(seen: ModelView, sample: tuple) -> str | None:
    """Return the digest of a model's forward pass; None where it cannot be traced."""
    caller = "PermutationSymmetry.check"
    try:
        return export_graph(seen.module, sample, training=False, caller=caller).hash
    except TraceError:
        return None


def make_of(module: nn.Module) -> Hashable | None:
    """Return what tells the forward pass of a module: classes and settings, by path.

    Parameters and buffers do not count: they are compared elsewhere. None where a setting cannot
    be read.
    """
    try:
        return tuple(
            (path, type(part), frozenset(_settings(part))) for path, part in module.named_modules()
        )
    except Unreadable:
        return None


def _settings(part: nn.Module) -> Iterator[tuple[str, Hashable]]:
    """Yield the attributes of one module that its forward pass may read."""
    for name, value in vars(part).items():
        if name in OF_EVERY_MODULE:
            if value and name not in _NO_SETTINGS:  # hooks
                yield name, fingerprint(value)
        elif name == PROVENANCE:  # where a model came from is nothing that it reads
            continue
        elif isinstance(value, _PLAIN):
            yield name, value
        elif type(value) in (tuple, list) and value and all(type(v) is int for v in value):
            yield name, (type(value).__name__, *value)  # sizes, which most layers have
        elif not (isinstance(value, _CONTAINERS) and not value):  # torch keeps many that are empty
            yield name, fingerprint(value)


def _other(what: str) -> ArchitectureMismatchError:
    """Say that a model has another forward pass, and how that was seen."""
    return ArchitectureMismatchError(
        "PermutationSymmetry.check: the model has the tensors of the net that the symmetry was "
        f"found on, but another forward pass: {what}; use discover_symmetry on this model."
    )
