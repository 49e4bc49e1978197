"""Straight-through matching: permutations learned from the loss at the midpoint."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.func import functional_call

from sklmc._sklearn import check_random_state
from sklmc._torch import single_thread, to_device
from sklmc.alignment._descent import CoordinateDescent
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._tensor_pairs import block_pairs
from sklmc.alignment._weight import match_weights
from sklmc.models import (
    batch_statistics_copy,
    count_multiply_adds,
    per_sample_loss,
    pick_output,
)

BATCH_SIZE = 100
STEPS_PER_MATCH = 2  # gradient steps between two searches for the nearest permutation
MATCH_SWEEPS = 100  # at most, in such a search
LEARNING_RATE = 0.1
MOMENTUM = 0.9
PATIENCE = 10  # epochs without a lower loss


def match_straight_through(problem: Problem) -> Match:
    """Return the permutation of B whose midpoint with A has the lowest mean loss seen.

    A free copy of B's weights is kept. Every other step looks for the permuted B nearest to it;
    each measures the loss halfway between A and that net, and hands the gradient straight through
    to the free copy (Ainsworth, Hayase, Srinivasa, algorithm 2, which looks at every step). The
    true weights of B are what is scored. It starts from weight matching, or from the problem's
    own start where the loss is lower there. A start at which B is A is the answer: halfway lies A
    itself, and a copy of it whose midpoint has a lower loss would lead to another net.
    """
    midpoint = Midpoint(problem)

    def value_of(perms) -> float:
        return -midpoint.loss(problem.move_state(perms), problem.inputs, problem.target)

    states = problem.a.state, problem.state_b
    by_weight = match_weights(*states, problem.symmetry, groups=problem.groups)
    starts = [by_weight.perms, problem.identity()]  # weight matching first: it wins ties
    values = [value_of(start) for start in starts]
    for start, value in zip(starts, values):
        if problem.is_solved(start):
            return Match(start, [value], "straight_through")
    first = int(np.argmax(values))
    perms = best = starts[first]
    path = [values[first]]
    device = problem.a.device
    parameters = [name for name, _ in problem.a.module.named_parameters()]
    moved = problem.move_state(perms)
    free = {name: moved[name].clone().requires_grad_() for name in parameters}
    optimizer = torch.optim.SGD(free.values(), lr=LEARNING_RATE, momentum=MOMENTUM)
    order = check_random_state(problem.random_state)
    report = problem.report("straight-through matching")
    steps = waited = 0
    for _ in range(problem.max_iter):
        rows = torch.from_numpy(order.permutation(len(problem.target)))
        targets = problem.target[rows]
        for block in problem.inputs[rows].passes(BATCH_SIZE):
            target = targets[block.samples]
            with single_thread():
                if steps % STEPS_PER_MATCH == 0:
                    perms = _nearest(problem, free, perms)
                    moved = problem.move_state(perms)
                steps += 1
                # the value is the permuted B, the gradient is the free copy's
                through = {n: moved[n] + free[n] - free[n].detach() for n in parameters}
                outputs = midpoint.outputs(midpoint.between(through), to_device(block.args, device))
                outputs = outputs[block.outputs]
                loss = per_sample_loss(outputs, target, "fit").mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        perms = _nearest(problem, free, perms)
        moved = problem.move_state(perms)
        value = value_of(perms)
        waited += 1
        if value > path[-1]:
            path.append(value)
            best, waited = perms, 0
        report(value)
        if waited >= PATIENCE or not np.isfinite(value):
            break
    return Match(best, path, "straight_through")


def cost_per_row(problem: Problem) -> float:
    """Return how many multiplications one row of X costs in an epoch, roughly.

    One pass forward and two back for the row itself, and its share in a sweep of matching: each
    tensor's size times the size of each group that moves it.
    """
    pairs = block_pairs(problem.state_b, problem.state_b, problem.symmetry)
    match = sum(
        pair.a.numel() * pair.a.shape[dim]
        for pair in pairs
        for name in pair.free
        for dim in pair.dims(name)
    )
    return 3 * count_multiply_adds(problem.b, problem.inputs) + match / (
        BATCH_SIZE * STEPS_PER_MATCH
    )


def _nearest(problem: Problem, free, perms):
    """Return the permutations of B nearest to the free weights, searched from the present ones."""
    target = problem.state_b | {name: tensor.detach() for name, tensor in free.items()}
    with single_thread():
        pairs = block_pairs(target, problem.state_b, problem.symmetry)
        descent = CoordinateDescent(pairs, problem.groups)
        return descent.run(perms, MATCH_SWEEPS, one_sided=False).perms


class Midpoint:
    """Runs A's module with other weights; batch norm uses the statistics of each batch.

    Averaged running statistics do not belong to averaged weights: scored with them, every
    alignment of a batch-norm net looks equally bad.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.module = batch_statistics_copy(problem.a.module)
        self._names = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}

    def between(self, b: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the parameters halfway between A and the state `b`."""
        a = self.problem.a.state
        return {name: torch.lerp(a[name], b[name], 0.5) for name in self._names}

    def outputs(self, parameters: Mapping[str, torch.Tensor], args) -> torch.Tensor:
        """Run one batch."""
        output = functional_call(self.module, dict(parameters), args, tie_weights=False)
        return pick_output(self.problem.a, output)

    def loss(self, b: Mapping[str, torch.Tensor], inputs, target: torch.Tensor) -> float:
        """Return the mean loss halfway between A and the state `b`."""
        return float(per_sample_loss(self._predict(self.between(b), inputs), target, "auto").mean())

    def distance(self, b: Mapping[str, torch.Tensor], inputs) -> float:
        """Return how far the midpoint's outputs are from the mean of A's and B's, relative.

        One factor between the two is left free: a smaller scale of all outputs is no failure of
        the alignment.
        """
        a = {name: self.problem.a.state[name] for name in self._names}
        ends = [self._predict(state, inputs).double() for state in (a, dict(b))]
        wanted = (ends[0] + ends[1]) / 2
        middle = self._predict(self.between(b), inputs).double()
        wanted, middle = wanted - wanted.mean(dim=0), middle - middle.mean(dim=0)
        size = float(wanted.square().sum() * middle.square().sum())
        cosine = float((wanted * middle).sum()) / size**0.5 if size > 0 else 0.0
        return 1.0 - cosine

    def _predict(self, parameters, inputs) -> torch.Tensor:
        """Run all inputs in blocks."""
        device = self.problem.a.device
        parameters = {name: parameters[name] for name in self._names}
        with torch.no_grad(), single_thread():
            return inputs.collect(
                lambda args: self.outputs(parameters, to_device(args, device)).cpu()
            )
