"""The net itself before and after its units move: its own weights, its own dtype, no trace."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.exceptions import SymmetryError
from sklmc.models import module_with_state, named_tensors, plain_output, view
from sklmc.symmetry._groups._blocks import Structure
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._draws import N_DRAWS, Element, uniform
from sklmc.symmetry._proof._runners import GraphRunner, Widening, output_change, widen
from sklmc.symmetry._tracing._graph import flatten
from sklmc.symmetry._tracing._subject import Subject, dtype_of, settings_of

_NOISE = 1e-5  # relative difference of two runs of one net in its own precision
_LARGEST = 1e-5  # relative change of an output that rounding in float32 may cause
_STEPS = 100  # the same in rounding steps, for narrow dtypes where float64 is out of reach


@dataclass(frozen=True)
class Moved:
    """What the outputs of a net did when all its units moved."""

    error: float  # largest change of an output, relative to the largest output
    dtype: str  # in which it was measured
    worst: str | None  # the group that changes most, where that is more than rounding


class Trial:
    """A module with its weights and inputs, and what it answers as it is."""

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple,
        state: Mapping[str, torch.Tensor],
        aliases: Mapping[str, str],
        widening: bool = False,
    ):
        self._widening = widening
        self.module = module
        self.inputs = inputs
        self.state = state
        self.aliases = aliases
        self.dtype = dtype_of(state.values())
        self.before = self.outputs(module)

    @classmethod
    def of(cls, subject: Subject) -> Trial:
        """Run a subject as it is, with its own weights, in its own dtype, where it lies."""
        with subject.refusing():
            return cls(subject.module, subject.inputs, subject.state, subject.aliases)

    def check_deterministic(self, caller: str) -> None:
        """Run the net again as it is: an answer that changes by itself proves nothing."""
        if output_change(self.before, self.outputs(self.module)) > _NOISE:
            raise SymmetryError(
                f"{caller}: the forward pass of {type(self.module).__name__} is random in "
                "eval mode (two runs on the same input differ); switch the random step off in "
                "eval mode, for example functional dropout without training=self.training."
            )

    def outputs(self, module: nn.Module) -> list[torch.Tensor]:
        """Run a module and return the tensors that leave it."""
        wide = Widening() if self._widening else contextlib.nullcontext()
        with torch.no_grad(), single_thread(), wide:
            found = module(*self.inputs)
        return [value for value in flatten(plain_output(found)) if isinstance(value, torch.Tensor)]

    def moved(self, mover: Mover, groups: Sequence[PermutationGroup]) -> Moved:
        """Move all units at once, uniformly, time and again, and say what the outputs did.

        What the net's own dtype cannot tell from rounding is decided in float64.
        """
        random = np.random.RandomState(0)
        elements = [uniform(groups, random) for _ in range(N_DRAWS if groups else 0)]
        trial, largest = self, _LARGEST
        error, worst = self._largest_change(mover, elements, largest)
        if error > largest:
            wide = self._wide()
            if wide is None:
                largest = max(largest, _STEPS * torch.finfo(self.dtype).eps)
            else:
                trial = wide
            error, worst = trial._largest_change(mover, elements, largest)
        name = None
        if error > largest:
            alone = {name: trial._change(mover, {name: worst[name]}) for name in worst}
            name = max(alone, key=lambda name: alone[name])
        return Moved(error, str(trial.dtype).removeprefix("torch."), name)

    def _largest_change(
        self, mover: Mover, elements: Sequence[Element], largest: float
    ) -> tuple[float, Element]:
        """Return the largest change under some elements and its element; stop at a fault."""
        worst: tuple[float, Element] = 0.0, {}
        for element in elements:
            error = self._change(mover, element)
            if error > worst[0]:
                worst = error, element
            if error > largest:
                break
        return worst

    def _change(self, mover: Mover, element: Element) -> float:
        """Return the largest relative change of an output under one element."""
        moved = mover.state(self.state, element, self.aliases)
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(moved[name])
        return output_change(self.before, self.outputs(self._copy))

    @functools.cached_property
    def _copy(self) -> nn.Module:
        """A copy whose tensors are written anew for every element."""
        return module_with_state(self.module, self.state)

    @functools.cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of that copy; a tied one under its first name."""
        first: dict[int, str] = {}
        named = dict(named_tensors(self._copy))
        return {n: t for n, t in named.items() if first.setdefault(id(t), n) == n}

    def _wide(self) -> Trial | None:
        """Return the same in float64 on the CPU; None where the module does not run there."""
        module = copy.deepcopy(self.module).cpu().double()
        state = {name: widen(tensor) for name, tensor in self.state.items()}
        try:
            inputs = tuple(map(widen, self.inputs))
            return Trial(module, inputs, state, self.aliases, widening=True)
        except (RuntimeError, TypeError, ValueError):
            return None


def own_change(trial: Trial, structure: Structure, caller: str) -> Moved:
    """Move the net itself; refuse it where it does what its trace does not."""
    own = trial.moved(Mover(structure.blocks, structure.groups), structure.groups)
    if own.worst is not None:
        raise SymmetryError(
            f"{caller}: run as it is, the net changes when the units of group {own.worst!r} move "
            f"(relative error {own.error:.1e}), although its trace does not: forward takes another "
            "path while it is traced. Let both paths compute the same (look for torch.compiler."
            "is_compiling and for tensors kept from an earlier call), or trust the trace: "
            "verify=False."
        )
    return own


def function_change(symmetry, model, X, random_state) -> float:
    """Return the largest relative change of an output over uniform elements, in float64."""
    look = view(model, caller="PermutationSymmetry.verify")
    with settings_of(look):
        subject = Subject(look, X, look.caller)
        symmetry._check_tensors(subject.view)
        state = {name: widen(tensor) for name, tensor in subject.state.items()}
        runner = GraphRunner(subject.graph(False), subject.sample)
        mover = Mover(symmetry.blocks, symmetry.groups)
        worst = 0.0
        with torch.no_grad(), single_thread():
            before = runner(state)
            for _ in range(N_DRAWS if symmetry.groups else 0):
                moved = mover.state(state, uniform(symmetry.groups, random_state))
                worst = max(worst, output_change(before, runner(moved)))
        return worst
