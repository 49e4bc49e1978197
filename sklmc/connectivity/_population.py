"""Many nets of one architecture as stacked arrays around one empty module."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sklmc._torch import are_equal, to_device
from sklmc.models import ModelView, State, named_tensors, view


class Population:
    """The states of nets of one architecture and one empty module to run them in.

    `pack` gives the form that travels: each tensor stacked over the nets into one array, which
    joblib memory-maps where it is big, so that nets travel once and not with every task.
    """

    def __init__(self, looks: Sequence[ModelView]):
        first = looks[0]
        self.caller = first.caller
        self.device = first.device
        self.n_models = len(looks)
        self.states: list[State] | None = [look.state for look in looks]
        self.arrays: dict[str, np.ndarray] = {}
        self.dtypes = {name: tensor.dtype for name, tensor in first.state.items()}
        self.module = empty_module(first.module)

    def pack(self) -> Population:
        """Return a copy that holds stacked arrays (n_models, ...) instead of tensors."""
        new = copy.copy(self)
        states = self.states or []
        new.arrays = {
            name: np.stack([_to_numpy(state[name]) for state in states]) for name in self.dtypes
        }
        new.states = None
        return new

    def __len__(self) -> int:
        return self.n_models

    def state(self, model: int) -> State:
        """Return the state of one model, to be read only."""
        if self.states is not None:
            return self.states[model]
        return {
            name: to_device(_to_torch(self.arrays[name][model], dtype), self.device)
            for name, dtype in self.dtypes.items()
        }

    def skeleton(self) -> ModelView:
        """Return a view of the empty module, to be run with a state."""
        return view(self.module, caller=self.caller, name="models")


def empty_module(module: nn.Module) -> nn.Module:
    """Copy a module's structure around parameters without elements: a state must be given."""
    memo: dict[int, object] = {}
    for _, tensor in named_tensors(module):
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(tensor.new_empty(0), requires_grad=False)
        else:
            memo[id(tensor)] = tensor.new_empty(0)
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and id(value) not in memo:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo).eval()


def same_bits(a: State, b: State) -> bool:
    """Say whether two states hold the same numbers."""
    return all(are_equal((tensor, b[name]) for name, tensor in a.items()))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's memory as an array; formats that numpy lacks as integers."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _to_torch(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return a fresh tensor, in torch's own aligned memory, from what `_to_numpy` gave."""
    tensor = torch.tensor(np.ascontiguousarray(array))
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor
