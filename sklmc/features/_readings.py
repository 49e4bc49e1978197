"""Features of several nets on the same samples, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sklmc._torch import single_thread
from sklmc._validation import check_alpha
from sklmc.features._follow import Call, Follower
from sklmc.features._layers import Layer, by_sample, trace_layers
from sklmc.models import (
    ModelView,
    check_compatible,
    check_finite,
    input_blocks,
    interpolate_states,
    run_module,
    view,
)

BLOCK_BYTES = 2**24  # of features that one block may hold over all nets
MAX_ROWS = 1024
TRACE_ROWS = 8

State = Mapping[str, torch.Tensor]


@dataclass
class Reading:
    """What one net's layers put out, and saw, on one block: layer -> tensor (rows, ...)."""

    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    result: torch.Tensor | None = None


class Tap:
    """Reads named layers of a net while it runs."""

    def __init__(self, look: ModelView, outputs: Sequence[str] = (), inputs: Sequence[str] = ()):
        self.look, self.outputs, self.inputs = look, set(outputs), set(inputs)
        self._copies = False  # whether a layer changes what another one put out

    def run(self, args: tuple[torch.Tensor, ...], state: State | None = None) -> Reading:
        """Run one block, with other weights if `state` is given."""
        reading = Reading()
        versions: list[tuple[torch.Tensor, int]] = []
        rows = len(args[0])

        def keep(found: dict, call: Call, tensor) -> None:
            if tensor is None:
                return
            versions.append((tensor, tensor._version))
            rowed = by_sample(call, tensor.detach(), rows)
            if rowed is not None:
                found[call.name] = rowed.clone() if self._copies else rowed

        def before(call: Call, tensor) -> None:
            if call.name in self.inputs:
                keep(reading.inputs, call, tensor)

        def after(call: Call, tensor) -> None:
            if call.name in self.outputs:
                keep(reading.outputs, call, tensor)

        with single_thread(), Follower(self.look, before, after):
            reading.result = run_module(self.look, args, state)
        if not self._copies and any(tensor._version != was for tensor, was in versions):
            self._copies = True
            return self.run(args, state)
        return reading


class Nets:
    """Nets of one architecture, their layers, and the samples that flow through them."""

    def __init__(self, models: Sequence, X, caller: str, names: Sequence[str], min_samples: int):
        self.caller = caller
        self.looks = [view(m, caller=caller, name=name) for m, name in zip(models, names)]
        if len(self.looks) > 1:
            check_compatible(self.looks, caller, list(names))
        else:
            check_finite(self.looks[0].state, caller, names[0])
        self.data = self.looks[0].to_input(X)
        parts = self.data if isinstance(self.data, tuple) else (self.data,)
        self.n_samples = len(parts[0])
        if self.n_samples < min_samples:
            raise ValueError(
                f"{caller}: 'X' holds {self.n_samples} sample, too few: at least {min_samples} "
                "are needed."
            )
        sample = tuple(part[:TRACE_ROWS] for part in parts)
        if self.n_samples == 1:
            sample = tuple(part.expand(2, *part.shape[1:]) for part in sample)
        self.layers = trace_layers(self.looks[0], sample)

    @property
    def n_weight_layers(self) -> int:
        """Number of layers with weights that a forward pass runs."""
        return max((layer.depth for layer in self.layers), default=0)

    def read(
        self,
        outputs: Sequence[Layer] = (),
        inputs: Sequence[Layer] = (),
        alphas: Sequence[float] = (),
    ) -> Iterator[list[Reading]]:
        """Yield one reading per net, then one per net at `alphas` between the first two.

        Memory depends on the layers, not on the number of samples.
        """
        wanted = {"outputs": [w.name for w in outputs], "inputs": [w.name for w in inputs]}
        between = [interpolate_states(*(m.state for m in self.looks[:2]), x) for x in alphas]
        runs: list[tuple[Tap, State | None]] = [(Tap(look, **wanted), None) for look in self.looks]
        merged = Tap(self.looks[0], **wanted)
        runs += [(merged, state) for state in between]
        per_sample = sum(np.prod(layer.shape) for layer in outputs)
        per_sample += sum(np.prod(layer.input_shape) for layer in inputs)
        rows = int(np.clip(BLOCK_BYTES // (8 * max(1, per_sample) * len(runs)), 1, MAX_ROWS))
        for args in input_blocks(self.data, rows):
            yield [tap.run(args, state) for tap, state in runs]


def check_inner_alphas(alphas, caller: str) -> list[float]:
    """Return positions strictly between the nets, each once and in the order given."""
    if np.ndim(alphas) == 0 and not isinstance(alphas, (str, bytes)):
        alphas = [alphas]
    values = [check_alpha(_plain(x), caller, "alphas") for x in itertools.chain(alphas)]
    if not values:
        raise ValueError(f"{caller}: 'alphas' is empty; pass positions between 0 and 1.")
    for value in values:
        if value in (0.0, 1.0):
            raise ValueError(
                f"{caller}: 'alphas' holds {value!r}, where the net is an end point and is "
                "compared with itself; pass positions strictly between 0 and 1."
            )
    return list(dict.fromkeys(values))


def _plain(value):
    """Return numpy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value
