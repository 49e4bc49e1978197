"""Any module for many members at once, by torch.func."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call, vmap


class VectorizedModule:
    """Members of one module, mapped over by torch; gradients by autograd."""

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor],
        net,
    ):
        self.module, self.net = module, net
        self.parameters, self.buffers = dict(parameters), dict(buffers)
        self._map = vmap(self._one, in_dims=(0, 0, 0, 0), randomness="error")

    def _one(self, parameters, buffers, x, target):
        """Return the loss and the outputs of one member."""
        outputs = functional_call(self.module, (parameters, buffers), (x,))
        training = self.module.training
        return self.net.get_loss(outputs, target, X=x, training=training), outputs

    def step(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the gradients of one batch per member and return the losses (M,)."""
        self.module.train()
        losses, _ = self._map(self.parameters, self.buffers, x, target)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses.sum().backward()
        return losses.detach()

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses (M,) and outputs (M, n_samples, ...) in evaluation mode."""
        self.module.eval()
        return self._map(self.parameters, self.buffers, x, target)
