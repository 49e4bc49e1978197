"""The portfolio behind method="auto": several methods, and what chooses among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sklmc._sklearn import check_random_state
from sklmc.alignment._activation import match_by_activation
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._straight_through import Midpoint, cost_per_row, match_straight_through
from sklmc.alignment._weight import match_by_weight

CHOICE_SHARE = 0.5  # of X that only chooses among the candidates of "auto"
CHOICE_ROWS = 2000  # and no more rows than this
LEARNING_EPOCHS = 30  # of straight-through matching within "auto", at most
LEARNING_COST = 5e9  # multiplications of such an epoch, at most: X is cut to this
LEARNING_ROWS = 2000  # where it would be cut below this, straight-through matching is left out


def match_by_trial(problem: Problem) -> Match:
    """Try several methods; keep the one whose midpoint with A is best on rows kept apart.

    With labels, best means the lowest loss; without, outputs nearest to the mean of A's and B's.
    What makes B equal to A is best without question.
    Without X there is nothing to choose by: weight matching.
    """
    if problem.inputs is None:
        return match_by_weight(problem)
    fit, choice = _split(problem)
    midpoint = Midpoint(choice)

    def badness(name: str, match: Match) -> float:
        state = problem.move_state(match.perms)
        if choice.target is None:
            value = midpoint.distance(state, choice.inputs)
        else:
            value = midpoint.loss(state, choice.inputs, choice.target)
        problem.progress(name, -value)
        return value

    best, lowest = None, np.inf
    for name, match in _run_candidates(fit):
        if problem.is_solved(match.perms):  # a copy of A: no midpoint says more
            return replace(match, method=name)
        value = badness(name, match)
        if best is None or value < lowest:
            best, lowest = replace(match, method=name), value
    n_rows = 0 if fit is problem else _count_affordable_rows(problem)
    if not n_rows:
        return best
    starts, chosen = {"weight": problem.identity(), best.method: best.perms}, None
    for name, perms in starts.items():
        value = badness(f"{name}, then straight_through", _learn(fit, n_rows, perms))
        if value < lowest:
            chosen, lowest = name, value
    if chosen is None:
        return best
    match = _learn(problem, n_rows, starts[chosen])  # once more, with the rows that chose
    return replace(match, method=f"{chosen}, then straight_through")


def _learn(problem: Problem, n_rows: int, perms) -> Match:
    """Return what straight-through matching makes of permutations, on so many rows at most."""
    order = check_random_state(problem.random_state).permutation(len(problem.target))
    short = replace(
        problem.with_rows(order[:n_rows]), max_iter=min(problem.max_iter, LEARNING_EPOCHS)
    )
    return short.go_on(perms, match_straight_through)


def _count_affordable_rows(problem: Problem) -> int:
    """Return how many rows straight-through matching may see within "auto"; 0 for none."""
    if problem.target is None:
        return 0
    n = len(problem.target)
    n_rows = min(n, int(LEARNING_COST / cost_per_row(problem)))
    return n_rows if n_rows >= min(n, LEARNING_ROWS) else 0


def _run_candidates(problem: Problem) -> Iterator[tuple[str, Match]]:
    """Yield what the members of the portfolio find, the surest first: it wins ties."""
    seeds = check_random_state(problem.random_state).randint(2**31 - 1, size=2).tolist()
    yield "weight", match_by_weight(problem)
    yield "weight, from the identity", match_by_weight(problem, one_sided=False)
    for i, seed in enumerate(seeds):
        more = replace(problem, n_init=2, random_state=seed)
        yield f"weight, random start {i}", match_by_weight(more)
    for statistic, refine in itertools.product(("correlation", "moment"), (False, True)):
        name = f"activation ({statistic}){', then weight' if refine else ''}"
        yield name, match_by_activation(replace(problem, statistic=statistic, refine=refine))


def _split(problem: Problem) -> tuple[Problem, Problem]:
    """Split X (and y) into rows that methods may use and rows that choose among them."""
    n = len(problem.inputs)
    order = check_random_state(problem.random_state).permutation(n)
    n_choice = min(int(np.ceil(n * CHOICE_SHARE)), CHOICE_ROWS)
    if n < 4:
        return problem, problem
    return problem.with_rows(order[n_choice:]), problem.with_rows(order[:n_choice])
