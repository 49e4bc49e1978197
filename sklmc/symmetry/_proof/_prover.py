"""The instrument of the proof: a net with random weights in float64, moved and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sklmc._torch import single_thread
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._draws import N_DRAWS, SIMPLE, Element, simple_kinds, uniform
from sklmc.symmetry._proof._outputs import TOLERANCE, output_change, scales
from sklmc.symmetry._proof._runners import GraphRunner, widen
from sklmc.symmetry._tracing._graph import Graph, flatten
from sklmc.symmetry._tracing._subject import Subject


class Prover:
    """Moves groups of a net with random weights and measures what the outputs do."""

    def __init__(self, subject: Subject, graphs: Sequence[Graph], seed: int = 0):
        self.random = np.random.RandomState(seed)
        self.draws: Counter[str] = Counter()
        self._gradients: dict[str, dict[str, torch.Tensor]] = {}
        self.seed = seed
        self.aliases = subject.aliases
        self.buffers = subject.buffers
        self.inputs = self._lively_inputs(subject.sample)
        self.runners: dict[str, Callable] = {}
        self.reference: dict[str, list[torch.Tensor]] = {}
        self.state = self._random_state(subject.state)
        self._jittered = self._jittered_state(subject.state)
        for graph in graphs:
            self.add("train" if graph.training else "eval", GraphRunner(graph, self.inputs))

    def add(self, mode: str, runner: Callable) -> None:
        """Add a way to run the net; weights that give no finite output are replaced."""
        self.runners[mode] = runner
        self.reference[mode] = self._run(mode, self.state)
        if not self._is_finite() and self.state is not self._jittered:
            self.state = self._jittered
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

    def _random_state(self, state) -> dict[str, torch.Tensor]:
        """Draw parameters of the usual sizes and running statistics that are not trivial."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            first = self.aliases.get(name, name)
            if first in found:
                found[name] = found[first]
            elif not (tensor.is_floating_point() or tensor.is_complex()):
                found[name] = widen(tensor)
            else:
                found[name] = self._drawn(name, tensor, name in self.buffers)
        return found

    def _drawn(self, name: str, tensor: torch.Tensor, is_buffer: bool) -> torch.Tensor:
        """Draw one tensor."""
        shape = tuple(tensor.shape)
        noise = self._normal(shape)
        if tensor.is_complex():
            noise = torch.complex(noise, self._normal(shape))
        long = [size for size in shape if size > 1]
        if is_buffer:
            if "var" in name.rpartition(".")[2]:
                return torch.from_numpy(self.random.uniform(0.5, 1.5, shape))
            return 0.5 * noise
        if len(long) > 1:
            return noise * (1.4 / (noise.numel() / long[0])) ** 0.5
        if "bias" in name.rpartition(".")[2]:
            return 0.4 * noise
        return 1.0 + 0.4 * noise

    def _jittered_state(self, state) -> dict[str, torch.Tensor]:
        """Return the net's own weights with noise, where random ones give no finite output."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            first = self.aliases.get(name, name)
            wide = widen(tensor)
            if first in found:
                found[name] = found[first]
            elif wide.is_floating_point() and wide.numel():
                spread = float(wide.std()) if wide.numel() > 1 else 0.0
                noise = self._normal(wide.shape)
                found[name] = wide * (1 + 0.2 * noise.abs()) + 0.1 * spread * noise
            else:
                found[name] = wide
        return found

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

    def noise(self, mode: str) -> float:
        """Return how much an output changes when nothing does: 0 unless forward is random."""
        return self.change(mode, self.state)

    def gradients(self, mode: str) -> dict[str, torch.Tensor]:
        """Return the gradient of a random sum of outputs (scaled to one) for every tensor."""
        if mode not in self._gradients:
            self._gradients[mode] = self._differentiate(mode)
        return self._gradients[mode]

    def _differentiate(self, mode: str) -> dict[str, torch.Tensor]:
        for chosen in (self.state.keys(), self.state.keys() - self.buffers):
            found = self._gradients_of(mode, [n for n in self.state if n in chosen])
            if found is not None:
                return found
        return {}  # something in it has no derivative: everything is tried

    def _gradients_of(self, mode: str, names: list[str]) -> dict[str, torch.Tensor] | None:
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
                outputs = [v for v in self.runners[mode](state) if v.requires_grad]
                total = sum(
                    (v * self._normal(v.shape)).sum() / scale
                    for v, scale in zip(outputs, scales(outputs), strict=True)
                )
                found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            except (RuntimeError, TypeError):
                return None
        return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}

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
            if worst > TOLERANCE:
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
            if worst > TOLERANCE:
                break
        return worst

    def alone(self, mover: Mover, group: PermutationGroup) -> float:
        """Return the largest error over one simple element of every kind that a group has."""
        worst = 0.0
        for kind in simple_kinds(group):
            self.draws[kind] += 1
            worst = max(worst, self.error(mover, {group.name: SIMPLE[kind](group, self.random)}))
        return worst
