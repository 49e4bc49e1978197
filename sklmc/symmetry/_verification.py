"""Proof by test: do the claimed permutations leave the function unchanged?

Labels are right by construction as far as the rules are right. Here the rules are put to the test:
on random weights, in float64, in eval and train mode, with uniform elements of all that is claimed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sklmc._torch import single_thread
from sklmc.symmetry._application import Mover
from sklmc.symmetry._blocks import Block
from sklmc.symmetry._draws import N_DRAWS, SIMPLE, Element, simple_kinds, uniform
from sklmc.symmetry._execution import GraphRunner, widen
from sklmc.symmetry._graph import Graph, flatten
from sklmc.symmetry._group import PermutationGroup

TOLERANCE = 1e-9  # largest relative change of an output that rounding may cause in float64
VISIBLE = 1e-7  # smallest relative change of an output that counts as seen
_TINY = 1e-4  # of the largest output: below, rounding may be most of an output


@dataclass
class Proof:
    """What was tested, and how large the errors were."""

    modes: tuple[str, ...]
    seed: int
    groups: tuple[PermutationGroup, ...] = ()  # what passed
    draws: dict[str, int] = field(default_factory=dict)  # kind of element -> how many were drawn
    errors: dict[str, float] = field(default_factory=dict)  # each group moved alone
    error: float = 0.0  # all groups together
    failed: dict[str, float] = field(default_factory=dict)  # group -> error; frozen for it
    tied: tuple[str, ...] = ()  # groups that passed with fewer copies than were claimed
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
        self.draws: Counter[str] = Counter()
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


def output_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """Return the largest change of an output relative to its largest value.

    An output that is tiny beside the net's other outputs is measured by those: it may be zero up
    to rounding.
    """
    worst = 0.0
    for a, b, scale in zip(before, after, scales(before), strict=True):
        if not (a.is_floating_point() or a.is_complex()):
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        if finite.any():
            worst = max(worst, float((a[finite] - b[finite]).abs().max()) / scale)
    return worst


def scales(outputs: Sequence[torch.Tensor]) -> list[float]:
    """Return by what each output is measured: its largest finite value, none by far the least."""
    sizes = [_largest(value) for value in outputs]
    least = _TINY * max(sizes, default=0.0)
    return [max(size, least) or 1.0 for size in sizes]


def _largest(value: torch.Tensor) -> float:
    """Return the largest finite absolute value of a floating tensor; 0 where there is none."""
    if not (value.is_floating_point() or value.is_complex()):
        return 0.0
    finite = value.detach()[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def prove(
    prover: Prover, blocks: Mapping[str, Sequence[Block]], groups: Sequence[PermutationGroup]
) -> Proof:
    """Test the groups, each alone and all together; name those that fail.

    What is kept has passed `N_DRAWS` uniform elements of all of it together. That is the proof: one
    run per draw and mode, whatever the number of groups. Simple elements of every group, and
    halving where these miss the fault, only say which group is to blame. As true elements form a
    subgroup, groups that are right one by one are right together.
    """
    proof = Proof(tuple(prover.runners), prover.seed)
    mover = Mover(blocks, groups)
    errors = {group.name: prover.alone(mover, group) for group in groups}
    faults = {name: error for name, error in errors.items() if error > TOLERANCE}
    while True:
        kept = [group for group in groups if group.name not in faults]
        proof.error = prover.together(mover, kept)
        if proof.error <= TOLERANCE:
            break
        found = _faults(prover, mover, kept)
        if not found:  # rounding that adds up: the least exact group gives way
            found = {max(kept, key=lambda group: errors[group.name]).name: proof.error}
        faults.update(found)
    tied = _tied(prover, blocks, [group for group in groups if group.name in faults])
    if tied:
        kept = [tied.get(g.name, g) for g in groups if g.name in tied or g.name not in faults]
        mover = Mover(blocks, kept)
        proof.error = prover.together(mover, kept)
    proof.groups, proof.tied = tuple(kept), tuple(tied)
    proof.failed = {name: error for name, error in faults.items() if name not in tied}
    for group in kept:
        again = group.name in tied
        proof.errors[group.name] = prover.alone(mover, group) if again else errors[group.name]
        unseen = _unobservable(prover, mover, group)
        if unseen:
            proof.unobservable[group.name] = unseen
    proof.draws = dict(prover.draws)
    return proof


def _faults(prover: Prover, mover: Mover, groups: Sequence[PermutationGroup]) -> dict[str, float]:
    """Return the groups that change an output, with their errors, by halving."""
    error = prover.together(mover, groups)
    if error <= TOLERANCE:
        return {}
    if len(groups) == 1:
        return {groups[0].name: error}
    half = len(groups) // 2
    return {
        **_faults(prover, mover, groups[:half]),
        **_faults(prover, mover, groups[half:]),
    }


def _tied(
    prover: Prover, blocks, groups: Sequence[PermutationGroup]
) -> dict[str, PermutationGroup]:
    """Return the groups that pass with one permutation for all copies along some outer groups."""
    found = {}
    for group in groups:
        for tied in _ties(group):
            if prover.together(Mover(blocks, [tied]), [tied]) <= TOLERANCE:
                found[group.name] = tied
                break
    return found


def _ties(group: PermutationGroup) -> Iterator[PermutationGroup]:
    """Yield a group with ever fewer outer groups on whose index its permutation may depend."""
    outer = list(zip(group.within, group.outer_sizes, strict=True))
    for n in reversed(range(len(outer))):
        for left in itertools.combinations(outer, n):
            within, sizes = zip(*left, strict=True) if left else ((), ())
            yield replace(group, within=tuple(within), outer_sizes=tuple(sizes))


def _unobservable(prover: Prover, mover: Mover, group: PermutationGroup) -> tuple[str, ...]:
    """Return the tensors of a group that may move alone without any output seeing it.

    The first-order effect of the move is read off one backward pass; what it does not show is
    tried.
    """
    found = []
    for name in dict.fromkeys(tensor for tensor, _ in group.places):
        if name in prover.aliases:
            continue
        tensor = prover.state[name]
        moved = _visibly_moved(prover, mover, group, name)
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


def _visibly_moved(prover: Prover, mover: Mover, group: PermutationGroup, name: str):
    """Return a tensor under a uniform element of a group that moves something in it.

    A tensor may hold one of many copies; its entries may be all alike.
    """
    tensor = prover.state[name]
    for _ in range(N_DRAWS):
        moved = mover.tensor(name, tensor, uniform([group], prover.random))
        if not torch.equal(moved, tensor):
            break
    return moved


def _first_order(prover: Prover, mode: str, name: str, step: torch.Tensor) -> float:
    """Return the effect of a small step on a random sum of outputs, relative to their size."""
    gradient = prover.gradients(mode).get(name)
    if gradient is None:
        return 0.0
    return abs(float((gradient * step).sum()))
