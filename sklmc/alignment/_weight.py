"""Weight matching: units with like weights in and out (Git Re-Basin, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sklmc._sklearn import Parallel, check_random_state, delayed
from sklmc._torch import single_thread
from sklmc.alignment._block_pair import block_pairs
from sklmc.alignment._descent import CoordinateDescent, DescentResult
from sklmc.alignment._problem import Match, Problem

MAX_SEED = np.iinfo(np.int32).max


def match_by_weight(problem: Problem, *, one_sided: bool = True) -> Match:
    """Match units by their weights."""
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


def match_weights(
    a,
    b,
    symmetry,
    *,
    start: Mapping[str, np.ndarray],
    groups: Sequence,
    one_sided: bool = True,
    n_init: int = 1,
    max_iter: int = 100,
    random_state=None,
    n_jobs: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> DescentResult:
    """Return the permutations of state `b` that maximise its inner product with state `a`.

    The first run begins at `start`, with a one-sided pass; every further one at random
    permutations of `groups`, which it visits in random order. The best objective is kept, the
    earliest among equals.
    """
    seeds: list[int | None] = [None]
    if n_init > 1:
        seeds += list(check_random_state(random_state).randint(MAX_SEED, size=n_init - 1))

    def descend(seed: int | None) -> DescentResult:
        begin, own = dict(start), None
        if seed is not None:
            own = check_random_state(seed)
            drawn = symmetry.random_permutation(own)
            begin |= {group.name: drawn[group.name] for group in groups}
        with single_thread():
            descent = CoordinateDescent(block_pairs(a, b, symmetry), groups)
            return descent.run(
                begin, max_iter, one_sided=one_sided and own is None, rng=own, progress=progress
            )

    # results are small and inputs large: threads, whatever the surrounding backend
    results = Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(descend)(seed) for seed in seeds)
    return max(results, key=lambda result: result.objective)
