"""Running statistics of batch norm that belong to the weights beside them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sklmc.models import Call, Inputs, ModelView, Moments, State, Watcher, end_pass

_STATISTICS = ("running_mean", "running_var")


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
    moments = {part: Moments() for part in names}
    tensors = {}  # a module's mean and variance, which stand under all of its names
    for part, paths in names.items():
        tensors[part] = [new[_join(paths[0], kind)].clone() for kind in _STATISTICS]
        for kind, tensor in zip(_STATISTICS, tensors[part]):
            new.update((_join(path, kind), tensor) for path in paths)
    whole = inputs.in_one_pass(batch_size)
    settled: set[str] = set()  # calls whose layer has had its statistics from all samples
    reached: Call | None = None

    def settle(call: Call) -> None:
        seen = moments[call.module]
        if seen.count < 2:
            raise ValueError(
                f"{look.caller}: 'X' gives batch-norm layer {names[call.module][0]!r} a single "
                "value per channel, which has no variance; pass at least two samples."
            )
        mean, variance = tensors[call.module]
        mean.copy_(seen.mean)
        variance.copy_(seen.variance(correction=1))
        settled.add(call.name)

    def before(call: Call) -> None:
        nonlocal reached
        if call.name in settled:
            return
        moments[call.module].add(call.input, unit_axis=1)
        if whole:  # one block holds all samples: no need to stop
            settle(call)
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
            settle(reached)


def _join(path: str, name: str) -> str:
    """Return the name of a tensor of a module."""
    return f"{path}.{name}" if path else name
