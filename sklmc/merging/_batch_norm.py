"""Running statistics of batch norm that belong to the weights beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sklmc.models import BLOCK_ROWS, Call, Inputs, ModelView, Moments, State, Watcher, end_pass


def tracked_norms(module: nn.Module) -> dict[nn.Module, list[str]]:
    """Return the batch-norm layers that keep running statistics, with all their names."""
    names: dict[nn.Module, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            names.setdefault(part, []).append(name)
    return names


def reestimate_statistics(
    look: ModelView, state: State, inputs: Inputs, batch_size: int | None = None
) -> dict[str, torch.Tensor]:
    """Return a copy of `state` whose batch-norm statistics are those of `inputs`.

    In data-flow order, every layer gets the mean and the unbiased variance of what reaches it
    from all samples while the layers before it use their new statistics in eval mode. The
    result does not depend on the batch size (to rounding): samples that fit into one block take
    one pass; otherwise each layer takes a pass that stops where the layer is reached. A layer
    that is called several times pools its calls.
    """
    new = dict(state)
    names = tracked_norms(look.module)
    statistics = _Statistics(look, new, names)
    whole = len(inputs) <= (batch_size or BLOCK_ROWS)
    settled: set[str] = set()  # calls whose layer has had its statistics from all samples
    reached: Call | None = None

    def before(call: Call) -> None:
        nonlocal reached
        if call.name in settled:
            return
        statistics.add(call.module, call.input)
        if whole:  # one block holds all samples: no need to stop
            statistics.write(call.module)
            settled.add(call.name)
            return
        reached = call
        end_pass()

    with Watcher(look, before, modules=[first for first, *_ in names.values()]) as watcher:
        while True:
            reached = None
            for args in inputs.blocks(batch_size):
                watcher.run(args, new)
            if reached is None:
                return new
            statistics.write(reached.module)
            settled.add(reached.name)


class _Statistics:
    """What has reached each batch-norm layer, and its place in a state."""

    def __init__(self, look: ModelView, state: dict, names: Mapping[nn.Module, list[str]]):
        self.look = look
        self.names = names
        self._moments = {part: Moments() for part in names}
        self._tensors = {}
        for part, (first, *others) in names.items():
            mean = state[_join(first, "running_mean")].clone()
            variance = state[_join(first, "running_var")].clone()
            self._tensors[part] = mean, variance
            for name in (first, *others):  # one module may have several names
                state[_join(name, "running_mean")] = mean
                state[_join(name, "running_var")] = variance

    def add(self, part: nn.Module, batch: torch.Tensor) -> None:
        """Take in what reaches a layer, (n_samples, n_channels, ...)."""
        self._moments[part].add(batch, unit_axis=1)

    def write(self, part: nn.Module) -> None:
        """Put a layer's mean and unbiased variance into the state."""
        moments = self._moments[part]
        if moments.count < 2:
            raise ValueError(
                f"{self.look.caller}: 'X' gives batch-norm layer {self.names[part][0]!r} a single "
                "value per channel, which has no variance; pass at least two samples."
            )
        mean, variance = self._tensors[part]
        mean.copy_(moments.mean)
        variance.copy_(moments.variance(correction=1))


def _join(prefix: str, name: str) -> str:
    """Return the name of a tensor of a module."""
    return f"{prefix}.{name}" if prefix else name
