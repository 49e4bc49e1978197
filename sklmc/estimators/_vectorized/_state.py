"""Weights, buffers and optimizer state of many nets, together along a first axis."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch.func import stack_module_state

# Every entry of every parameter is updated by itself, so that members do not mix.
ELEMENTWISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
_HOW = ("params", "fused", "foreach", "capturable", "differentiable")


class VectorizedState:
    """The members' tensors as one: what is (...) in a net is (n_members, ...) here."""

    def __init__(self, nets: Sequence):
        self.parameters, self.buffers = stack_module_state([net.module_ for net in nets])
        self.optimizer = self._vectorize_optimizer(nets[0])

    def _vectorize_optimizer(self, net) -> torch.optim.Optimizer:
        """Return an optimizer like that of a net (which has no state yet) over all members."""
        names = {id(parameter): name for name, parameter in net.module_.named_parameters()}
        kind = type(net.optimizer_)
        groups = [
            {
                "params": [self.parameters[names[id(parameter)]] for parameter in group["params"]],
                **{key: value for key, value in group.items() if key not in _HOW},
            }
            for group in net.optimizer_.param_groups
        ]
        return kind(groups, fused=True) if kind in _FUSED else kind(groups)

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but those at `positions`."""
        index = torch.tensor(positions)
        state = self.optimizer.state
        renewed = {}
        for name, old in self.parameters.items():
            new = old.detach()[index.to(old.device)].requires_grad_(old.requires_grad)
            if old in state:
                state[new] = {
                    key: value[index.to(value.device)] if _is_vectorized(value, old) else value
                    for key, value in state.pop(old).items()
                }
            renewed[old] = new
            self.parameters[name] = new
        for group in self.optimizer.param_groups:
            group["params"] = [renewed[parameter] for parameter in group["params"]]
        self.buffers = {name: value[index.to(value.device)] for name, value in self.buffers.items()}

    @torch.no_grad()
    def write_weights(self, position: int, net) -> None:
        """Copy the weights and buffers of one member into its net."""
        for name, parameter in net.module_.named_parameters():
            parameter.copy_(self.parameters[name][position])
        for name, buffer in net.module_.named_buffers():
            buffer.copy_(self.buffers[name][position])

    @torch.no_grad()
    def write_optimizer(self, position: int, net) -> None:
        """Copy the optimizer's state and settings of one member into its net."""
        for group, own in zip(self.optimizer.param_groups, net.optimizer_.param_groups):
            own.update({key: value for key, value in group.items() if key not in _HOW})
            for all_members, parameter in zip(group["params"], own["params"]):
                if all_members in self.optimizer.state:
                    net.optimizer_.state[parameter] = {
                        key: _part(value, all_members, position)
                        for key, value in self.optimizer.state[all_members].items()
                    }


def _is_vectorized(value, parameter: torch.Tensor) -> bool:
    """Say whether an entry of an optimizer's state has one part per member."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def _part(value, parameter: torch.Tensor, position: int):
    """Return one member's part of an entry of an optimizer's state; counters are shared."""
    if _is_vectorized(value, parameter):
        return value[position].clone()
    if isinstance(value, torch.Tensor) and value.ndim == 0:
        return value.detach().cpu().clone()
    return copy.deepcopy(value)
