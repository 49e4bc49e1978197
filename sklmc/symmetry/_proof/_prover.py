"""The instrument of the proof: a net with random weights in float64, moved and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from sklmc._torch import single_thread
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._draws import N_DRAWS, SIMPLE, Element, simple_kinds, uniform
from sklmc.symmetry._proof._runners import (
    NARROW_TOLERANCE,
    TOLERANCE,
    GraphRunner,
    output_change,
    scales,
    widen,
)
from sklmc.symmetry._tracing._graph import Graph, flatten
from sklmc.symmetry._tracing._subject import Subject


class Prover:
    """Moves groups of a net with random weights and measures what the outputs do."""

    def __init__(self, subject: Subject, graphs: Sequence[Graph], seed: int = 0):
        self.random = np.random.RandomState(seed)
        self.draws: Counter[str] = Counter()
        self.seed = seed
        self.aliases = subject.aliases
        self.buffers = subject.buffers
        self.inputs = self._lively_inputs(subject.sample)
        self.runners: dict[str, Callable] = {}
        self.reference: dict[str, list[torch.Tensor]] = {}
        self.state = self._replaced(subject.state, self._drawn)
        self._own: Mapping[str, torch.Tensor] | None = subject.state  # until noise is added to it
        for graph in graphs:
            self.add("train" if graph.training else "eval", GraphRunner(graph, self.inputs))

    def add(self, mode: str, runner: Callable) -> None:
        """Add a way to run the net; weights that give no finite output are replaced."""
        self.runners[mode] = runner
        self.reference[mode] = self._run(mode, self.state)
        if not self._is_finite() and self._own is not None:
            self.state, self._own = self._replaced(self._own, self._jittered), None
            self.reference = {known: self._run(known, self.state) for known in self.runners}

    # -- material --------------------------------------------------------------------------

    def _normal(self, shape) -> torch.Tensor:
        return torch.from_numpy(self.random.standard_normal(tuple(shape)))

    def _lively_inputs(self, inputs: tuple) -> tuple:
        """Return inputs in float64 with noise: constant inputs would prove nothing."""
        found = []
        for value in flatten(inputs):
            value = widen(value)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                finite = bool(torch.isfinite(value).all())
                spread = float(value.std()) if value.numel() > 1 and finite else 0.0
                if finite:
                    value = value + (0.3 * spread or 1.0) * self._normal(value.shape)
            found.append(value)
        return tuple(found)

    def _replaced(self, state, draw: Callable) -> dict[str, torch.Tensor]:
        """Return a state with every tensor drawn anew, in float64; tied tensors stay one."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            first = self.aliases.get(name, name)
            found[name] = found[first] if first in found else draw(name, widen(tensor))
        return found

    def _drawn(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Draw a parameter of the usual size, or a running statistic that is not trivial."""
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        shape, last = tuple(tensor.shape), name.rpartition(".")[2]
        noise = self._normal(shape)
        if tensor.is_complex():
            noise = torch.complex(noise, self._normal(shape))
        long = [size for size in shape if size > 1]
        if name in self.buffers:
            if "var" in last:
                return torch.from_numpy(self.random.uniform(0.5, 1.5, shape))
            return 0.5 * noise
        if len(long) > 1:
            return noise * (1.4 / (noise.numel() / long[0])) ** 0.5
        return 0.4 * noise if "bias" in last else 1.0 + 0.4 * noise

    def _jittered(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Add noise to the net's own weights: for nets that random ones give no finite output."""
        if not (tensor.is_floating_point() and tensor.numel()):
            return tensor
        spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
        noise = self._normal(tensor.shape)
        return tensor * (1 + 0.2 * noise.abs()) + 0.1 * spread * noise

    @property
    def is_narrow(self) -> bool:
        """Whether some operation of the net runs in float32 alone."""
        return any(runner.is_narrow for runner in self.runners.values())

    @property
    def tolerance(self) -> float:
        """Largest relative change of an output that rounding may cause."""
        return NARROW_TOLERANCE if self.is_narrow else TOLERANCE

    # -- measuring -------------------------------------------------------------------------

    def _run(self, mode: str, state) -> list[torch.Tensor]:
        with torch.no_grad(), single_thread():
            return self.runners[mode](state)

    def _is_finite(self) -> bool:
        return all(
            bool(torch.isfinite(value).all())
            for values in self.reference.values()
            for value in values
            if value.is_floating_point()
        )

    @cached_property
    def gradients(self) -> dict[str, torch.Tensor]:
        """The gradient of a random sum of outputs (scaled to one) in eval mode, in float32.

        Of no tensor where something has no derivative.
        """
        trainable = [name for name in self.state if name not in self.buffers]
        tries = (self._gradients_of(names) for names in (list(self.state), trainable))
        return next((found for found in tries if found is not None), {})

    def _gradients_of(self, names: list[str]) -> dict[str, torch.Tensor] | None:
        leaves = {
            name: self.state[name].detach().requires_grad_()
            for name in names
            if self.state[name].is_floating_point() and name not in self.aliases
        }
        state = {
            name: leaves.get(self.aliases.get(name, name), tensor)
            for name, tensor in self.state.items()
        }
        with torch.enable_grad(), single_thread():
            try:
                outputs = [v for v in self.runners["eval"](state) if v.requires_grad]
                total = sum(
                    (v * self._normal(v.shape)).sum() / scale
                    for v, scale in zip(outputs, scales(outputs), strict=True)
                )
                wide = list(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))
            except (RuntimeError, TypeError):
                return None
        # whether a step is seen does not take float64; of a large net not all is held twice
        found = {name: wide.pop(0) for name in leaves}
        for name, gradient in found.items():
            found[name] = None if gradient is None else gradient.float()
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def change(self, mode: str, state) -> float:
        """Return the largest relative change of an output under another state."""
        return output_change(self.reference[mode], self._run(mode, state))

    def error(self, mover: Mover, element: Element) -> float:
        """Return the largest change over the modes under one element; the first that is too large.

        A state is moved once for all modes.
        """
        state = mover.state(self.state, element, self.aliases)
        worst = 0.0
        for mode in self.runners:
            worst = max(worst, self.change(mode, state))
            if worst > self.tolerance:
                break
        return worst

    def together(self, mover: Mover, chosen: Sequence[PermutationGroup]) -> float:
        """Return the largest error over uniform elements of all chosen groups together.

        Stops at the first that changes an output.
        """
        worst = 0.0
        for _ in range(N_DRAWS if chosen else 0):
            self.draws["uniform"] += 1
            worst = max(worst, self.error(mover, uniform(chosen, self.random)))
            if worst > self.tolerance:
                break
        return worst

    def alone(self, mover: Mover, group: PermutationGroup) -> float:
        """Return the largest error over one simple element of every kind that a group has."""
        worst = 0.0
        for kind in simple_kinds(group):
            self.draws[kind] += 1
            worst = max(worst, self.error(mover, {group.name: SIMPLE[kind](group, self.random)}))
        return worst
