"""The net itself before and after its units move: its own weights, its own dtype, no trace."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sklmc._torch import single_thread
from sklmc.exceptions import SymmetryError
from sklmc.models import module_with_state
from sklmc.symmetry._application import Mover
from sklmc.symmetry._execution import widen
from sklmc.symmetry._extraction import Structure
from sklmc.symmetry._graph import flatten
from sklmc.symmetry._verification import output_change

_LARGEST = 1e-5  # relative change of an output that rounding in float32 may cause
_STEPS = 100  # the same in rounding steps, for narrow dtypes where float64 is out of reach


@dataclass(frozen=True)
class Moved:
    """What the outputs of a net did when all its units moved."""

    error: float  # largest change of an output, relative to the largest output
    dtype: str  # in which it was measured


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
        self.before = self.outputs(module)

    def outputs(self, module: nn.Module) -> list[torch.Tensor]:
        """Run a module and return the tensors that leave it."""
        with torch.no_grad(), single_thread():
            found = module(*self.inputs)
        found = found.to_tuple() if hasattr(found, "to_tuple") else found
        return [value for value in flatten(found) if isinstance(value, torch.Tensor)]

    def moved(self, structure: Structure, caller: str) -> Moved:
        """Move all units at once and say what the outputs did; refuse a net that changes.

        What the net's own dtype cannot tell from rounding is decided in float64.
        """
        mover = Mover(structure.blocks, structure.groups)
        random = np.random.RandomState(0)
        arrays = {group.name: group.derangement(random) for group in structure.groups}
        error, trial, largest = self._change(mover, arrays), self, _LARGEST
        if error > largest:
            wide = self._wide()
            if wide is None:
                largest = max(largest, _STEPS * torch.finfo(self._dtype).eps)
            else:
                error, trial = wide._change(mover, arrays), wide
        if arrays and error > largest:
            alone = {name: trial._change(mover, {name: arrays[name]}) for name in arrays}
            worst = max(alone, key=lambda name: alone[name])
            raise SymmetryError(
                f"{caller}: run as it is, the net changes when the units of group {worst!r} move "
                f"(relative error {error:.1e}), although its trace does not: forward takes another "
                "path while it is traced. Let both paths compute the same (look for torch.compiler."
                "is_compiling and for tensors kept from an earlier call), or trust the trace: "
                "verify=False."
            )
        return Moved(error, str(trial._dtype).removeprefix("torch."))

    @property
    def _dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        floating = (tensor.dtype for tensor in self.state.values() if tensor.is_floating_point())
        return next(floating, torch.float32)

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
