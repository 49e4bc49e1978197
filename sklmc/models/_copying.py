"""Copies of modules and skorch nets that share, or replace, exactly the tensors asked for."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from skorch import NeuralNet
from skorch.history import History
from torch import nn
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX
from torch.nn.parameter import UninitializedTensorMixin

from sklmc._torch import torch_defaults

State = Mapping[str, torch.Tensor]
OF_EVERY_MODULE = frozenset(vars(nn.Module()))  # names of what torch itself keeps in a module


class SpentState(dict[str, torch.Tensor]):
    """A state that is read for the last time: a tensor that was read is gone from it.

    Where a model is made of one, there are never two copies of all tensors beside the model's.
    """

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.pop(name)


def tensors_in(value) -> Iterator[torch.Tensor]:
    """Yield a tensor, or the tensors inside nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters and persistent buffers, tied names included, in state_dict order."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None and name not in part._non_persistent_buffers_set:
                yield dot + name, tensor


def read_tensors(module: nn.Module, caller: str, name: str) -> dict[str, torch.Tensor]:
    """Return a module's tensors by name; refuse a module that keeps weights elsewhere."""
    tensors = {}
    for tensor_name, tensor in named_tensors(module):
        if isinstance(tensor, UninitializedTensorMixin) or tensor.is_meta:
            raise ValueError(
                f"{caller}: tensor {tensor_name!r} of '{name}' has no values yet (a lazy layer or "
                "the meta device); run the module on data or load its weights first."
            )
        tensors[tensor_name] = tensor.detach()
    for key in module.state_dict():
        if key not in tensors and key.rpartition(".")[2] != _EXTRA_STATE_KEY_SUFFIX:
            raise TypeError(
                f"{caller}: '{name}' keeps {key!r} outside its parameters and buffers (a "
                "quantised layer?); pass the module in floating point."
            )
    return tensors


@torch_defaults(None)
def private_copy(module: nn.Module) -> nn.Module:
    """Copy a module's structure, flags and buffers, sharing its parameters; eval mode."""
    memo = _computed_tensors(module)
    memo.update((id(p), p) for p in module.parameters())
    return copy.deepcopy(module, memo).eval()


def batch_statistics_copy(module: nn.Module) -> nn.Module:
    """Return a private copy whose batch norm uses the statistics of each batch and keeps none.

    Averaged running statistics do not belong to averaged weights.
    """
    copied = private_copy(module)
    for part in copied.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean = part.running_var = part.num_batches_tracked = None
            part.track_running_stats = False
    return copied


@torch_defaults(None)
def module_with_state(module: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy a module whose parameters and persistent buffers are copies of `state`'s tensors."""
    return copy.deepcopy(module, _state_memo(module, state))


@torch_defaults(None)
def net_with_state(net: NeuralNet, state: Mapping[str, torch.Tensor]) -> NeuralNet:
    """Copy a fitted skorch net around new weights; optimizer state and history start empty.

    A plain deepcopy would send the whole net through torch.save and copy its weights twice.
    """
    memo = _state_memo(net.module_, state)
    for value in vars(net).values():
        if isinstance(value, torch.optim.Optimizer):
            memo[id(value.state)] = defaultdict(dict)
    if isinstance(getattr(net, "history_", None), History):
        memo[id(net.history_)] = History()
    new = net.__class__.__new__(net.__class__)
    memo[id(net)] = new
    vars(new).update(copy.deepcopy(vars(net), memo))
    return new


def shallow_copy(net: NeuralNet) -> NeuralNet:
    """Copy a skorch net that shares all that it holds: copy.copy would pickle its weights."""
    new = net.__class__.__new__(net.__class__)
    vars(new).update(vars(net))
    return new


def _state_memo(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[int, object]:
    """Map each tensor of a module to its replacement, for deepcopy."""
    memo = _computed_tensors(module)
    for name, tensor in named_tensors(module):
        if id(tensor) in memo:
            continue  # tied: the first name decides
        fresh = state[name].detach().clone()
        if isinstance(tensor, nn.Parameter):
            fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = fresh
    return memo


def _computed_tensors(module: nn.Module) -> dict[int, object]:
    """Detach tensors that hooks or earlier passes computed: deepcopy refuses them."""
    memo: dict[int, object] = {}
    for part in module.modules():
        for value in vars(part).values():
            for tensor in tensors_in(value):
                if not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    return memo
