"""Straight-through matching: permutations learned from the loss at the midpoint."""

from __future__ import annotations

import numpy as np
import torch

from sklmc._sklearn import check_random_state
from sklmc._torch import single_thread, to_device
from sklmc.alignment._block_pair import block_pairs
from sklmc.alignment._descent import CoordinateDescent
from sklmc.alignment._midpoint import Midpoint
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._weight import match_weights
from sklmc.models import count_multiply_adds, per_sample_loss

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

    starts = _starts(problem)
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
        done = 0
        for args in problem.inputs[rows].blocks(BATCH_SIZE):
            target = targets[done : done + len(args[0])]
            done += len(target)
            with single_thread():
                if steps % STEPS_PER_MATCH == 0:
                    perms = _nearest(problem, free, perms)
                    moved = problem.move_state(perms)
                steps += 1
                # the value is the permuted B, the gradient is the free copy's
                through = {n: moved[n] + free[n] - free[n].detach() for n in parameters}
                outputs = midpoint.outputs(midpoint.between(through), to_device(args, device))
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
        if report is not None:
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


def _starts(problem: Problem) -> list[dict[str, np.ndarray]]:
    """Return where a run may begin, weight matching first: it wins ties."""
    by_weight = match_weights(
        problem.a.state,
        problem.state_b,
        problem.symmetry,
        start=problem.identity(),
        groups=problem.groups,
    ).perms
    return [by_weight, problem.identity()]


def _nearest(problem: Problem, free, perms):
    """Return the permutations of B nearest to the free weights, searched from the present ones."""
    target = {name: free[name].detach() if name in free else tensor for name, tensor in
              problem.state_b.items()}  # fmt: skip
    with single_thread():
        pairs = block_pairs(target, problem.state_b, problem.symmetry)
        descent = CoordinateDescent(pairs, problem.groups)
        return descent.run(perms, MATCH_SWEEPS, one_sided=False).perms
