"""Features of several nets on the same samples, block by block."""

from __future__ import annotations

import contextlib
import itertools
import math
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

BLOCK_NUMBERS = 2**23  # of features that one block may hold over all nets
MAX_ROWS = 1024
TRACE_ROWS = 8

State = Mapping[str, torch.Tensor]


@dataclass
class Reading:
    """What one net's layers put out, and saw, on one block: layer -> tensor (rows, ...)."""

    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)


class Tap:
    """Reads named layers of a net while it runs, inside a ``with`` block."""

    def __init__(self, look: ModelView, outputs: Sequence[str] = (), inputs: Sequence[str] = ()):
        self.look, self.outputs, self.inputs = look, set(outputs), set(inputs)
        self._follower = Follower(look, self._before, self._after)
        self._copies = False  # whether a layer changes what another one put out
        self._reading = Reading()
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._rows = 0

    def __enter__(self) -> Tap:
        self._hooks = self._follower.installed()
        self._hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._hooks.__exit__(*error)

    def run(self, args: tuple[torch.Tensor, ...], state: State | None = None) -> Reading:
        """Run one block, with other weights if `state` is given."""
        reading = self._reading = Reading()
        self._rows = len(args[0])
        self._versions.clear()
        with single_thread(), self._follower:
            run_module(self.look, args, state)
        changed = any(tensor._version != was for tensor, was in self._versions)
        self._versions.clear()
        if changed and not self._copies:
            self._copies = True
            return self.run(args, state)
        return reading

    def _before(self, call: Call, tensor) -> None:
        if call.name in self.inputs:
            self._keep(self._reading.inputs, call, tensor)

    def _after(self, call: Call, tensor) -> None:
        if call.name in self.outputs:
            self._keep(self._reading.outputs, call, tensor)

    def _keep(self, found: dict, call: Call, tensor) -> None:
        """Store a tensor, and its version: that tells whether a later layer writes into it."""
        if tensor is None:
            return
        self._versions.append((tensor, tensor._version))
        rowed = by_sample(call, tensor.detach(), self._rows)
        if rowed is not None:
            found[call.name] = rowed.clone() if self._copies else rowed


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
        first, last = self.looks[0].state, self.looks[-1].state
        between = [interpolate_states(first, last, x) for x in alphas]
        per_sample = sum(math.prod(layer.shape) for layer in outputs)
        per_sample += sum(math.prod(layer.input_shape) for layer in inputs)
        size = max(1, per_sample) * (len(self.looks) + len(between))
        rows = min(MAX_ROWS, max(1, BLOCK_NUMBERS // size))
        with contextlib.ExitStack() as stack:
            taps = [stack.enter_context(Tap(look, **wanted)) for look in self.looks]
            for args in input_blocks(self.data, rows):
                yield [tap.run(args) for tap in taps] + [taps[0].run(args, s) for s in between]


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
