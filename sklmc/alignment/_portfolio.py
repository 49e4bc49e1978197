"""The matching methods by name, and the portfolio that chooses among the cheap ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sklmc._sklearn import check_random_state
from sklmc.alignment._activation import match_activations
from sklmc.alignment._midpoint import Midpoint
from sklmc.alignment._problem import Match, Problem
from sklmc.alignment._straight_through import match_straight_through
from sklmc.alignment._weight import match_weights

CHOICE_SHARE = 0.5  # of X that only chooses among the candidates of "auto"
CHOICE_ROWS = 2000  # and no more rows than this


def by_weight(problem: Problem, *, one_sided: bool = True) -> Match:
    """Match weights."""
    result = match_weights(
        problem.a.state,
        problem.state_b,
        problem.symmetry,
        start=problem.identity(),
        groups=problem.groups,
        one_sided=one_sided,
        n_init=problem.n_init,
        max_iter=problem.max_iter,
        random_state=problem.random_state,
        n_jobs=problem.n_jobs,
        progress=problem.report("weight matching"),
    )
    return Match(result.perms, result.objective_path, "weight")


def by_activation(problem: Problem) -> Match:
    """Match activations; groups that cannot be watched, and all with `refine`, by their weights."""
    result, unseen = match_activations(problem)
    perms = result.perms
    remaining = [g for g in problem.groups if problem.refine or g.name in unseen]
    if remaining:
        moved = problem.moved_state(perms)
        rest = replace(problem, state_b=moved, groups=remaining, n_init=1)
        on_top = problem.symmetry.permutation(by_weight(rest, one_sided=False).perms)
        perms = dict(on_top.compose(problem.symmetry.permutation(perms)))
    return Match(perms, result.objective_path, "activation")


def by_portfolio(problem: Problem) -> Match:
    """Try the cheap methods; keep the one whose midpoint with A is best on rows kept apart.

    With labels, best means the lowest loss; without, outputs nearest to the mean of A's and B's.
    Without X there is nothing to choose by: weight matching.
    """
    if problem.inputs is None:
        return by_weight(problem)
    fit, choice = _divided(problem)
    midpoint = Midpoint(choice)

    def badness(perms) -> float:
        state = problem.moved_state(perms)
        if choice.target is None:
            return midpoint.distance(state, choice.inputs)
        return midpoint.loss(state, choice.inputs, choice.target)

    best, lowest = None, np.inf
    for name, candidate in _candidates(fit):
        match = candidate()
        value = badness(match.perms)
        if problem.progress is not None:
            problem.progress(name, -value)
        if best is None or value < lowest:
            best, lowest = replace(match, method=name), value
    return best


def _candidates(problem: Problem) -> list[tuple[str, Callable[[], Match]]]:
    """Return the members of the portfolio, the surest first: it wins ties."""
    watched = [
        (f"activation ({statistic}){', then weight' if refine else ''}", statistic, refine)
        for statistic in ("correlation", "moment")
        for refine in (False, True)
    ]
    restarts = check_random_state(problem.random_state).randint(2**31 - 1, size=2)
    return [
        ("weight", lambda: by_weight(problem)),
        ("weight, from the identity", lambda: by_weight(problem, one_sided=False)),
        *(
            (f"weight, random start {i}", lambda s=int(seed): by_weight(_started(problem, s)))
            for i, seed in enumerate(restarts)
        ),
        *(
            (name, lambda s=s, r=r: by_activation(replace(problem, statistic=s, refine=r)))
            for name, s, r in watched
        ),
    ]


def _started(problem: Problem, seed: int) -> Problem:
    """Return the problem with one more start, drawn from a seed."""
    return replace(problem, n_init=2, random_state=seed)


def _divided(problem: Problem) -> tuple[Problem, Problem]:
    """Split X (and y) into rows that methods may use and rows that choose among them."""
    parts = problem.inputs if isinstance(problem.inputs, tuple) else (problem.inputs,)
    n = len(parts[0])
    order = check_random_state(problem.random_state).permutation(n)
    n_choice = min(int(np.ceil(n * CHOICE_SHARE)), CHOICE_ROWS)
    if n < 4:
        return problem, problem
    both = []
    for rows in (order[n_choice:], order[:n_choice]):
        cut = tuple(part[rows] for part in parts)
        target = None if problem.target is None else problem.target[rows]
        inputs = cut if isinstance(problem.inputs, tuple) else cut[0]
        both.append(replace(problem, inputs=inputs, target=target))
    return both[0], both[1]


METHODS: dict[str, Callable[[Problem], Match]] = {
    "weight": by_weight,
    "activation": by_activation,
    "straight_through": match_straight_through,
    "auto": by_portfolio,
}
