"""The average of a module's weights along its training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sklmc._torch import are_equal
from sklmc.models import named_tensors


class RunningAverage:
    """The mean of the weights that a module had, or their exponential moving average.

    Parameters are averaged; buffers are those of the last update. Weights of less than 32 bits are
    averaged in 32: a step of one part in a thousand would be lost in their rounding.

    Parameters
    ----------
    decay : float, default=None
        None takes the plain mean, a number in [0, 1) ``decay * average + (1 - decay) * weights``.
    warmup : bool, default=False
        Whether the decay after n updates is at most ``(1 + n) / (10 + n)``: the average forgets
        its first weights while it is young.
    """

    def __init__(self, decay: float | None = None, warmup: bool = False):
        self.decay, self.warmup = decay, warmup
        self.n_averaged = 0
        self.tensors: dict[str, torch.Tensor] = {}

    def update(self, module: nn.Module) -> None:
        """Let the module's present weights enter."""
        done: dict[int, torch.Tensor] = {}  # tied tensors stand under several names
        for name, tensor in named_tensors(module):
            if id(tensor) not in done:
                done[id(tensor)] = self._after(self.tensors.get(name), tensor)
            self.tensors[name] = done[id(tensor)]
        self.n_averaged += 1

    def _after(self, average: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
        """Return the average of one tensor after one more value of it."""
        new = tensor.detach()
        if not _is_averaged(tensor):
            return new.clone()
        if average is None:
            return new.to(torch.promote_types(new.dtype, torch.float32), copy=True)
        if average.device != new.device:
            average = average.to(new.device)
        new, n = new.to(average.dtype), self.n_averaged
        if self.decay is None:
            return average.add_((new - average) / (n + 1))
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        return average.lerp_(new, 1 - decay)

    def fits(self, module: nn.Module) -> bool:
        """Say whether the module has the tensors that were averaged."""
        shapes = {name: tensor.shape for name, tensor in named_tensors(module)}
        return shapes == {name: tensor.shape for name, tensor in self.tensors.items()}

    def state_for(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Return the average as tensors of the module's devices and dtypes."""
        return {
            name: self.tensors[name].to(tensor.device, tensor.dtype)
            for name, tensor in named_tensors(module)
        }

    def is_in(self, module: nn.Module) -> bool:
        """Say whether the module's parameters are the average, buffers aside."""
        state = self.state_for(module)
        return all(
            are_equal(
                (tensor.detach(), state[name])
                for name, tensor in named_tensors(module)
                if _is_averaged(tensor)
            )
        )

    def __getstate__(self):
        """Travel on the CPU: a net may be unpickled where there is no accelerator."""
        return {**vars(self), "tensors": on_cpu(self.tensors)}


def write_tensors(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy values into a module's own tensors, so that its optimizer stays bound to them."""
    for name, tensor in named_tensors(module):
        tensor.detach().copy_(state[name])


def on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors by name on the CPU; those that lie there are not copied."""
    return {name: tensor.cpu() for name, tensor in state.items()}


def _is_averaged(tensor: torch.Tensor) -> bool:
    """Say whether a module's tensor is a weight: a buffer, or a number of bits, is not."""
    inexact = tensor.is_floating_point() or tensor.is_complex()
    return isinstance(tensor, nn.Parameter) and inexact
