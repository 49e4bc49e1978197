"""Proof by test: do the claimed permutations leave the function unchanged?

Labels are right by construction as far as the rules are right. Here the rules are put to the test:
on random weights, in float64, in eval and train mode, with permutations that move something in
every copy of every group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sklmc._torch import single_thread
from sklmc.symmetry._application import Mover
from sklmc.symmetry._blocks import Block
from sklmc.symmetry._execution import GraphRunner, widen
from sklmc.symmetry._graph import Graph, flatten
from sklmc.symmetry._group import PermutationGroup

TOLERANCE = 1e-9  # largest relative change of an output that rounding may cause in float64
VISIBLE = 1e-7  # smallest relative change of an output that counts as seen
N_DRAWS = 3


@dataclass
class Proof:
    """What was tested, and how large the errors were."""

    modes: tuple[str, ...]
    n_draws: int
    seed: int
    errors: dict[str, float] = field(default_factory=dict)  # each group moved alone
    error: float = 0.0  # all groups together
    failed: dict[str, float] = field(default_factory=dict)  # group -> error; frozen for it
    unobservable: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Prover:
    """Moves groups of a net with random weights and measures what the outputs do."""

    def __init__(
        self,
        graphs: Sequence[Graph],
        inputs: tuple,
        state: Mapping[str, torch.Tensor],
        aliases: Mapping[str, str],
        buffers: frozenset[str],
        seed: int = 0,
    ):
        self.random = np.random.RandomState(seed)
        self._gradients: dict[str, dict[str, torch.Tensor]] = {}
        self.seed = seed
        self.aliases = aliases
        self.buffers = buffers
        self.inputs = self._lively_inputs(inputs)
        self.runners: dict[str, Callable] = {}
        self.reference: dict[str, list[torch.Tensor]] = {}
        self.state = self._random_state(state, buffers)
        self._jittered = self._jittered_state(state)
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

    def _random_state(self, state, buffers) -> dict[str, torch.Tensor]:
        """Draw parameters of the usual sizes and running statistics that are not trivial."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            first = self.aliases.get(name, name)
            if first in found:
                found[name] = found[first]
            elif not (tensor.is_floating_point() or tensor.is_complex()):
                found[name] = widen(tensor)
            else:
                found[name] = self._drawn(name, tensor, name in buffers)
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
                    (v * self._normal(v.shape)).sum() / (v.detach().abs().max() + 1e-300)
                    for v in outputs
                )
                found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            except (RuntimeError, TypeError):
                return None
        return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}

    def change(self, mode: str, state) -> float:
        """Return the largest relative change of an output under another state."""
        return output_change(self.reference[mode], self._run(mode, state))

    def derangements(self, groups: Sequence[PermutationGroup]) -> dict[str, np.ndarray]:
        """Draw one permutation per group that moves every unit of every copy."""
        return {group.name: group.derangement(self.random) for group in groups}

    def error(self, mover: Mover, chosen: Sequence[PermutationGroup]) -> float:
        """Return the largest change over all modes when the chosen groups move once."""
        state = mover.state(self.state, self.derangements(chosen), self.aliases)
        return max((self.change(mode, state) for mode in self.runners), default=0.0)

    def together(self, mover: Mover, chosen: Sequence[PermutationGroup], n_draws: int) -> float:
        """Return the largest error over draws that move all chosen groups at once."""
        return max(
            (self.error(mover, chosen) for _ in range(n_draws if chosen else 0)), default=0.0
        )


def output_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the largest change of an output relative to its largest value."""
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if not a.numel():
            continue
        if not (a.is_floating_point() or a.is_complex()):
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        if finite.any():
            scale = float(a[finite].abs().max()) or 1.0
            worst = max(worst, float((a[finite] - b[finite]).abs().max()) / scale)
    return worst


def prove(
    prover: Prover,
    blocks: Mapping[str, Sequence[Block]],
    groups: Sequence[PermutationGroup],
    n_draws: int = N_DRAWS,
) -> Proof:
    """Test every group alone and all together; name those that fail.

    A group that fails takes with it the groups that lie within it. Where every group passes
    alone and all together do not, groups are added one by one and those that break the rest fail.
    """
    proof = Proof(tuple(prover.runners), n_draws, prover.seed)
    mover = Mover(blocks, groups)
    for group in groups:
        error = prover.together(mover, [group], n_draws)
        if error > TOLERANCE:
            _fail(proof, groups, group.name, error)
        else:
            proof.errors[group.name] = error
    kept = [group for group in groups if group.name not in proof.failed]
    proof.error = prover.together(mover, kept, n_draws)
    if proof.error > TOLERANCE:
        passed: list[PermutationGroup] = []
        for group in kept:
            if group.name in proof.failed:
                continue
            error = prover.together(mover, [*passed, group], 2)
            if error > TOLERANCE:
                _fail(proof, groups, group.name, error)
            else:
                passed.append(group)
        kept = [group for group in passed if group.name not in proof.failed]
        proof.error = prover.together(mover, kept, n_draws)
    for group in kept:
        unseen = _unobservable(prover, mover, group)
        if unseen:
            proof.unobservable[group.name] = unseen
    return proof


def _fail(proof: Proof, groups, name: str, error: float) -> None:
    """Note that a group failed, with all groups within it."""
    proof.failed[name] = error
    proof.errors.pop(name, None)
    for group in groups:
        if name in group.within and group.name not in proof.failed:
            _fail(proof, groups, group.name, error)


def _unobservable(prover: Prover, mover: Mover, group: PermutationGroup) -> tuple[str, ...]:
    """Return the tensors of a group that may move alone without any output seeing it.

    The first-order effect of the move is read off one backward pass; what it does not show is
    tried.
    """
    arrays = prover.derangements([group])
    found = []
    for name in dict.fromkeys(tensor for tensor, _ in group.places):
        if name in prover.aliases:
            continue
        tensor = prover.state[name]
        moved = mover.tensor(name, tensor, arrays)
        seen = any(
            _first_order(prover, mode, name, moved - tensor) > VISIBLE for mode in prover.runners
        )
        if not seen:
            state = dict(prover.state)
            for other in state:
                if prover.aliases.get(other, other) == name:
                    state[other] = moved
            seen = any(prover.change(mode, state) > VISIBLE for mode in prover.runners)
        if not seen:
            found.append(name)
    return tuple(found)


def _first_order(prover: Prover, mode: str, name: str, step: torch.Tensor) -> float:
    """Return the effect of a small step on a random sum of outputs, relative to their size."""
    gradient = prover.gradients(mode).get(name)
    if gradient is None:
        return 0.0
    return abs(float((gradient * step).sum()))
