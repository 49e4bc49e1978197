"""Straight-through matching: permutations learned from the loss at the midpoint."""

from __future__ import annotations

import numpy as np
import torch

from sklmc._sklearn import check_random_state
from sklmc._torch import single_thread, to_device
from sklmc.alignment._midpoint import Midpoint
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._weight import match_weights
from sklmc.models import input_blocks, per_sample_loss

BATCH_SIZE = 100
LEARNING_RATE = 0.1
MOMENTUM = 0.9
PATIENCE = 10  # epochs without a lower loss


def match_straight_through(problem: Problem) -> Match:
    """Return the permutation of B whose midpoint with A has the lowest mean loss seen.

    A free copy of B's weights is kept. Each step takes the permuted B nearest to it, measures the
    loss halfway between A and that net, and hands the gradient straight through to the free copy
    (Ainsworth, Hayase, Srinivasa, algorithm 2). The true weights of B are what is scored.
    """
    midpoint = Midpoint(problem)
    start = match_weights(
        problem.a.state,
        problem.state_b,
        problem.symmetry,
        start=problem.identity(),
        groups=problem.groups,
    ).perms
    device = problem.a.device
    parameters = [name for name, _ in problem.a.module.named_parameters()]
    moved = problem.moved_state(start)
    free = {name: moved[name].clone().requires_grad_() for name in parameters}
    optimizer = torch.optim.SGD(free.values(), lr=LEARNING_RATE, momentum=MOMENTUM)
    order = check_random_state(problem.random_state)
    parts = problem.inputs if isinstance(problem.inputs, tuple) else (problem.inputs,)

    perms = best = start
    path = [-midpoint.loss(moved, problem.inputs, problem.target)]
    waited = 0
    report = problem.report("straight-through matching")
    for _ in range(problem.max_iter):
        rows = torch.from_numpy(order.permutation(len(problem.target)))
        shuffled = tuple(part[rows] for part in parts)
        targets = problem.target[rows]
        done = 0
        for args in input_blocks(shuffled, BATCH_SIZE):
            target = targets[done : done + len(args[0])]
            done += len(target)
            with single_thread():
                perms = _nearest(problem, free, perms)
                moved = problem.moved_state(perms)
                # the value is the permuted B, the gradient is the free copy's
                through = {n: moved[n] + free[n] - free[n].detach() for n in parameters}
                outputs = midpoint.outputs(midpoint.between(through), to_device(args, device))
                loss = per_sample_loss(outputs, to_device(target, device), "fit").mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        perms = _nearest(problem, free, perms)
        value = -midpoint.loss(problem.moved_state(perms), problem.inputs, problem.target)
        waited += 1
        if value > path[-1]:
            path.append(value)
            best, waited = perms, 0
        if report is not None:
            report(value)
        if waited >= PATIENCE or not np.isfinite(value):
            break
    return Match(best, path, "straight_through")


def _nearest(problem: Problem, free, perms):
    """Return the permutations of B nearest to the free weights, searched from the present ones."""
    target = {name: free[name].detach() if name in free else tensor for name, tensor in
              problem.state_b.items()}  # fmt: skip
    return match_weights(
        target,
        problem.state_b,
        problem.symmetry,
        start=perms,
        groups=problem.groups,
        one_sided=False,
    ).perms
