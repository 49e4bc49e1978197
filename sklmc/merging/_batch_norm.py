"""Running statistics of batch norm that belong to the weights beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sklmc._torch import single_thread
from sklmc.models import ModelView, input_blocks, run_module

State = Mapping[str, torch.Tensor]


def tracked_norms(module: nn.Module) -> dict[nn.Module, list[str]]:
    """Return the batch-norm layers that keep running statistics, with all their names."""
    names: dict[nn.Module, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            names.setdefault(part, []).append(name)
    return names


def reestimate_statistics(
    view: ModelView, state: State, inputs, batch_size: int | None = None
) -> dict[str, torch.Tensor]:
    """Return a copy of `state` whose batch-norm statistics are those of `inputs`.

    In data-flow order, every layer gets the mean and the unbiased variance of what reaches it
    from all samples while the layers before it use their new statistics in eval mode. The
    result does not depend on the batch size (to rounding): samples that fit into one block take
    one pass; otherwise each layer takes a pass that stops where the layer is reached. A layer
    that is called several times pools its calls.
    """
    new = dict(state)
    recorder = _Recorder(view, new, whole=len(list(input_blocks(inputs, batch_size))) == 1)
    with recorder.watching():
        while True:
            for args in input_blocks(inputs, batch_size):
                recorder.calls.clear()
                with contextlib.suppress(_ReachedError), single_thread():
                    run_module(view, args, new)
            if not recorder.settle():
                return new


class _ReachedError(Exception):
    """Ends a forward pass at the layer whose statistics are being gathered."""


class Moments:
    """Mean and variance per channel of any number of batches, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: torch.Tensor | float = 0.0
        self.squares: torch.Tensor | float = 0.0  # summed squared deviations from the mean

    def add(self, batch: torch.Tensor) -> None:
        """Take in a batch (n_samples, n_channels, ...)."""
        if batch.dtype not in (torch.float32, torch.float64):
            batch = batch.float()
        others = [dim for dim in range(batch.ndim) if dim != 1]
        found = torch.var_mean(batch, dim=others, correction=0)  # by Welford's sums
        variance, mean = (one.double() for one in found)
        count = batch.numel() // batch.shape[1]
        total = self.count + count
        shift = mean - self.mean
        self.mean = self.mean + shift * (count / total)
        self.squares = self.squares + variance * count + shift**2 * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> torch.Tensor:
        """The unbiased variance per channel; zero for a single value."""
        return self.squares / max(self.count - 1, 1)


class _Recorder:
    """Gathers what reaches each batch-norm layer and writes its statistics into a state."""

    def __init__(self, view: ModelView, state: dict[str, torch.Tensor], whole: bool):
        self.view = view
        self.whole = whole  # one block holds all samples: no need to stop
        self.calls: dict[nn.Module, int] = {}  # in the present forward pass
        self.names = tracked_norms(view.module)
        self._settled: set[tuple[nn.Module, int]] = set()
        self._current: tuple[nn.Module, int] | None = None
        self._moments = {part: Moments() for part in self.names}
        self._statistics = {}
        for part, (first, *others) in self.names.items():
            mean = state[_join(first, "running_mean")].clone()
            variance = state[_join(first, "running_var")].clone()
            self._statistics[part] = mean, variance
            for name in (first, *others):  # one module may have several names
                state[_join(name, "running_mean")] = mean
                state[_join(name, "running_var")] = variance

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the layers for the duration of a block."""
        handles = [part.register_forward_pre_hook(self._on_call) for part in self.names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def settle(self) -> bool:
        """Write what the pass has gathered; False when the pass reached nothing new."""
        if self._current is None:
            return False
        self._write(self._current[0])
        self._settled.add(self._current)
        self._current = None
        return True

    def _on_call(self, part: nn.Module, args) -> None:
        """Record one call; stop the pass unless all samples are in it."""
        call = (part, self.calls.get(part, 0))
        self.calls[part] = call[1] + 1
        if call in self._settled:
            return
        self._moments[part].add(args[0])
        if self.whole:
            self._write(part)
            self._settled.add(call)
            return
        self._current = call
        raise _ReachedError

    def _write(self, part: nn.Module) -> None:
        """Put a layer's mean and unbiased variance into the state."""
        moments = self._moments[part]
        if moments.count < 2:
            raise ValueError(
                f"{self.view.caller}: 'X' gives batch-norm layer {self.names[part][0]!r} a single "
                "value per channel, which has no variance; pass at least two samples."
            )
        mean, variance = self._statistics[part]
        mean.copy_(moments.mean)
        variance.copy_(moments.variance)


def _join(prefix: str, name: str) -> str:
    """Return the name of a tensor of a module."""
    return f"{prefix}.{name}" if prefix else name
