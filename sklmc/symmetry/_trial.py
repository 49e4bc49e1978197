"""The net itself before and after its units move: its own weights, its own dtype, no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.models import module_with_state
from sklmc.symmetry._application import Mover
from sklmc.symmetry._execution import widen
from sklmc.symmetry._graph import flatten
from sklmc.symmetry._group import PermutationGroup
from sklmc.symmetry._verification import output_change

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
    ):
        self.module = module
        self.inputs = inputs
        self.state = state
        self.aliases = aliases
        self.dtype = dtype_of(state.values())
        self.before = self.outputs(module)

    def outputs(self, module: nn.Module) -> list[torch.Tensor]:
        """Run a module and return the tensors that leave it."""
        with torch.no_grad(), single_thread():
            found = module(*self.inputs)
        found = found.to_tuple() if hasattr(found, "to_tuple") else found
        return [value for value in flatten(found) if isinstance(value, torch.Tensor)]

    def moved(self, mover: Mover, groups: Sequence[PermutationGroup]) -> Moved:
        """Move all units at once and say what the outputs did.

        What the net's own dtype cannot tell from rounding is decided in float64.
        """
        random = np.random.RandomState(0)
        arrays = {group.name: group.derangement(random) for group in groups}
        error, trial, largest = self._change(mover, arrays), self, _LARGEST
        if error > largest:
            wide = self._wide()
            if wide is None:
                largest = max(largest, _STEPS * torch.finfo(self.dtype).eps)
            else:
                error, trial = wide._change(mover, arrays), wide
        worst = None
        if arrays and error > largest:
            alone = {name: trial._change(mover, {name: arrays[name]}) for name in arrays}
            worst = max(alone, key=lambda name: alone[name])
        return Moved(error, str(trial.dtype).removeprefix("torch."), worst)

    def _change(self, mover: Mover, arrays: Mapping[str, np.ndarray]) -> float:
        """Return the largest relative change of an output when some groups move."""
        moved = mover.state(self.state, arrays, self.aliases)
        return output_change(self.before, self.outputs(module_with_state(self.module, moved)))

    def _wide(self) -> Trial | None:
        """Return the same in float64 on the CPU; None where the module does not run there."""
        module = copy.deepcopy(self.module).cpu().double()
        state = {name: widen(tensor) for name, tensor in self.state.items()}
        try:
            return Trial(module, tuple(map(widen, self.inputs)), state, self.aliases)
        except (RuntimeError, TypeError, ValueError):
            return None


def dtype_of(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """Return the dtype of the first floating tensor; float32 where there is none."""
    floating = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return next(floating, torch.float32)
