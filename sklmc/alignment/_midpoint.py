"""The net halfway between A and a permuted B: its loss, and how far its outputs are from theirs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call

from sklmc._torch import single_thread, to_device
from sklmc.alignment._problem import Problem
from sklmc.models import per_sample_loss, pick_output, private_copy

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm


class Midpoint:
    """Runs A's module with other weights; batch norm uses the statistics of each batch.

    Averaged running statistics do not belong to averaged weights: scored with them, every
    alignment of a batch-norm net looks equally bad.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.module = private_copy(problem.a.original)
        for part in self.module.modules():
            if isinstance(part, _BATCH_NORMS):
                part.running_mean = part.running_var = part.num_batches_tracked = None
                part.track_running_stats = False
        self._names = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}

    def between(self, b: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the parameters halfway between A and the state `b`."""
        a = self.problem.a.state
        return {name: torch.lerp(a[name], b[name], 0.5) for name in self._names}

    def outputs(self, parameters: Mapping[str, torch.Tensor], args) -> torch.Tensor:
        """Run one batch."""
        output = functional_call(self.module, dict(parameters), args, tie_weights=False)
        return pick_output(self.problem.a, output)

    def loss(self, b: Mapping[str, torch.Tensor], inputs, target: torch.Tensor) -> float:
        """Return the mean loss halfway between A and the state `b`."""
        return float(per_sample_loss(self._predict(self.between(b), inputs), target, "auto").mean())

    def distance(self, b: Mapping[str, torch.Tensor], inputs) -> float:
        """Return how far the midpoint's outputs are from the mean of A's and B's, relative.

        One factor between the two is left free: a smaller scale of all outputs is no failure of
        the alignment.
        """
        a = {name: self.problem.a.state[name] for name in self._names}
        ends = [self._predict(state, inputs).double() for state in (a, dict(b))]
        wanted = (ends[0] + ends[1]) / 2
        middle = self._predict(self.between(b), inputs).double()
        wanted, middle = wanted - wanted.mean(dim=0), middle - middle.mean(dim=0)
        size = float(wanted.square().sum() * middle.square().sum())
        cosine = float((wanted * middle).sum()) / size**0.5 if size > 0 else 0.0
        return 1.0 - cosine

    def _predict(self, parameters, inputs) -> torch.Tensor:
        """Run all inputs in blocks."""
        device = self.problem.a.device
        parameters = {name: parameters[name] for name in self._names}
        with torch.no_grad(), single_thread():
            return inputs.collect(
                lambda args: self.outputs(parameters, to_device(args, device)).cpu()
            )
