"""Proof by test: do the claimed permutations leave the function unchanged?

Labels are right by construction as far as the rules are right. Here the rules are put to the test:
on random weights, in float64, in eval and train mode, with uniform elements of all that is claimed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from sklmc.exceptions import SymmetryError
from sklmc.symmetry._groups._blocks import Block, Structure
from sklmc.symmetry._groups._group import PermutationGroup
from sklmc.symmetry._groups._mover import Mover
from sklmc.symmetry._proof._draws import N_DRAWS, uniform
from sklmc.symmetry._proof._fusion import fusions
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._proof._trial import Moved

VISIBLE = 1e-7  # smallest relative change of an output that counts as seen


@dataclass
class Proof:
    """What was tested, and how large the errors were."""

    modes: tuple[str, ...]
    seed: int
    tolerance: float
    dtype: str  # float32 where an operation of the net runs in no wider one
    groups: tuple[PermutationGroup, ...] = ()  # what passed
    draws: dict[str, int] = field(default_factory=dict)  # kind of element -> how many were drawn
    errors: dict[str, float] = field(default_factory=dict)  # each group moved alone
    error: float = 0.0  # all groups together
    failed: dict[str, float] = field(default_factory=dict)  # group -> error; frozen for it
    tied: tuple[str, ...] = ()  # groups that passed with fewer copies than were claimed
    unobservable: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def evidence(self, own: Moved) -> dict:
        """Return what the proof rests on, as plain values; `own` is what the net itself did."""
        return {
            "modes": list(self.modes),
            "n_draws": sum(self.draws.values()),
            "draws": dict(self.draws),
            "seed": self.seed,
            "tolerance": self.tolerance,
            "dtype": self.dtype,
            "error": self.error,
            "errors": dict(self.errors),
            "failed": dict(self.failed),
            "tied": list(self.tied),
            "own_error": own.error,
            "own_dtype": own.dtype,
            "torch": torch.__version__,
        }


def prove_structure(
    prover: Prover, structure: Structure, caller: str, fuse: bool = False
) -> tuple[Structure, Proof]:
    """Return the part of a structure that passes the test, and what was measured."""
    eval_runner = prover.runners["eval"]
    if eval_runner.is_random or prover.change("eval", prover.state) > prover.tolerance:
        raise SymmetryError(
            f"{caller}: the forward pass is random in eval mode; switch the random step off in "
            "eval mode, for example functional dropout without training=self.training."
        )
    proof = prove(prover, structure.blocks, structure.groups)
    if proof.failed and "train" in prover.runners and prover.runners["train"].is_random:
        del prover.runners["train"]  # what it draws may belong to single units
        proof = prove(prover, structure.blocks, structure.groups)
    passed = {group.name: group for group in proof.groups}  # some with fewer copies than claimed
    reasons = {
        name: f"failed verification (relative error {error:.1e})"
        for name, error in proof.failed.items()
    }
    groups = tuple(passed.get(group.name, group) for group in structure.groups)
    structure = replace(structure, groups=groups).without(reasons)
    for _ in structure.groups if fuse else ():
        errors = (
            (fused, _error(prover, fused)) for fused in fusions(structure, proof.unobservable)
        )
        found = next((pair for pair in errors if pair[1] <= prover.tolerance), None)
        if found is None:
            break
        structure, proof.error = found
    if proof.error > prover.tolerance:
        raise SymmetryError(
            f"{caller}: the function changes (relative error {proof.error:.1e}) although every "
            "group that failed was frozen; please report this net."
        )
    groups = tuple(
        group._marked(proof.unobservable.get(group.name, ())) for group in structure.groups
    )
    return replace(structure, groups=groups), proof


def _error(prover: Prover, structure: Structure) -> float:
    """Return the largest change when all groups of a structure move together."""
    mover = Mover(structure.blocks, structure.groups)
    return prover.together(mover, structure.groups)


def prove(
    prover: Prover, blocks: Mapping[str, Sequence[Block]], groups: Sequence[PermutationGroup]
) -> Proof:
    """Test the groups, each alone and all together; name those that fail.

    What is kept has passed `N_DRAWS` uniform elements of all of it together. That is the proof: one
    run per draw and mode, whatever the number of groups. Simple elements of every group, and
    halving where these miss the fault, only say which group is to blame. As true elements form a
    subgroup, groups that are right one by one are right together.
    """
    proof = Proof(
        tuple(prover.runners),
        prover.seed,
        prover.tolerance,
        "float32" if prover.is_narrow else "float64",
    )
    mover = Mover(blocks, groups)
    errors = {group.name: prover.alone(mover, group) for group in groups}
    faults = {name: error for name, error in errors.items() if error > prover.tolerance}
    while True:
        kept = [group for group in groups if group.name not in faults]
        proof.error = prover.together(mover, kept)
        if proof.error <= prover.tolerance:
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
    if error <= prover.tolerance:
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
            if prover.together(Mover(blocks, [tied]), [tied]) <= prover.tolerance:
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

    The first-order effect of the move is read off one backward pass in eval mode; what it does not
    show is tried, in every mode.
    """
    found, gradients = [], prover.gradients
    for name in dict.fromkeys(tensor for tensor, _ in group.places):
        if name in prover.aliases:
            continue
        moved = _visibly_moved(prover, mover, group, name)
        seen = name in gradients and _effect(gradients[name], moved - prover.state[name]) > VISIBLE
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


def _effect(gradient: torch.Tensor, step: torch.Tensor) -> float:
    """Return the first-order effect of a small step on a random sum of outputs."""
    return abs(float((step.mul_(gradient)).sum()))
